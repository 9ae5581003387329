#include "agent/proc/devfilter.h"

#include <errno.h>
#include <linux/bpf.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"

#define PTY_MAJOR 136

#define LOAD(dst, field)                                                                           \
	{                                                                                          \
		.code = BPF_LDX | BPF_MEM | BPF_W, .dst_reg = (dst), .src_reg = BPF_REG_1,         \
		.off = offsetof(struct bpf_cgroup_dev_ctx, field)                                  \
	}
#define ALU(op, dst, value)                                                                        \
	{                                                                                          \
		.code = BPF_ALU64 | (op) | BPF_K, .dst_reg = (dst), .imm = (value)                 \
	}
#define COPY(dst, src)                                                                             \
	{                                                                                          \
		.code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = (dst), .src_reg = (src)            \
	}
#define JUMP(op, reg, value, skip)                                                                 \
	{                                                                                          \
		.code = BPF_JMP | (op) | BPF_K, .dst_reg = (reg), .imm = (value), .off = (skip)    \
	}
#define RETURN(value)                                                                              \
	ALU(BPF_MOV, BPF_REG_0, value),                                                            \
	{                                                                                          \
		.code = BPF_JMP | BPF_EXIT                                                         \
	}

/* r2 type, r3 access, r4 major, r5 minor */
static const struct bpf_insn program[] = {
	LOAD(BPF_REG_2, access_type),
	COPY(BPF_REG_3, BPF_REG_2),
	ALU(BPF_RSH, BPF_REG_3, 16),
	ALU(BPF_AND, BPF_REG_2, 0xffff),
	LOAD(BPF_REG_4, major),
	LOAD(BPF_REG_5, minor),
	/* 6 */
	JUMP(BPF_JEQ, BPF_REG_3, BPF_DEVCG_ACC_MKNOD, 12), /* only made: allow (19) */
	JUMP(BPF_JNE, BPF_REG_2, BPF_DEVCG_DEV_CHAR, 9),   /* deny (17) */
	JUMP(BPF_JEQ, BPF_REG_4, PTY_MAJOR, 10),	   /* allow */
	JUMP(BPF_JEQ, BPF_REG_4, 5, 5),			   /* to 15 */
	JUMP(BPF_JNE, BPF_REG_4, 1, 6),			   /* deny */
	/* 11: null zero full random urandom = 3 5 7 8 9 */
	JUMP(BPF_JEQ, BPF_REG_5, 3, 7),
	JUMP(BPF_JEQ, BPF_REG_5, 5, 6),
	JUMP(BPF_JLT, BPF_REG_5, 7, 3),
	JUMP(BPF_JLE, BPF_REG_5, 9, 4),
	/* 15: falls from 14 with minor > 9 of major 1: 5:0 and 5:2 cannot match it */
	JUMP(BPF_JEQ, BPF_REG_5, 0, 3), /* 5:0 tty */
	JUMP(BPF_JEQ, BPF_REG_5, 2, 2), /* 5:2 ptmx */
	/* 17 */
	RETURN(0),
	/* 19 */
	RETURN(1),
};

static int sys_bpf(int cmd, union bpf_attr *attr)
{
	long r = syscall(SYS_bpf, cmd, attr, sizeof(*attr));

	return r < 0 ? -errno : (int)r;
}

int devfilter_load(int *ret_fd, struct err *err)
{
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE,
		.insns = (uintptr_t)program,
		.insn_cnt = ARRAY_SIZE(program),
		.license = (uintptr_t) "GPL",
	};
	int fd = sys_bpf(BPF_PROG_LOAD, &attr);

	if (fd < 0)
		return err_errno(err, fd, "load the device rules");
	*ret_fd = fd;
	return 0;
}

int devfilter_attach(int prog_fd, int cgroup_fd, struct err *err)
{
	union bpf_attr attr = {
		.target_fd = (uint32_t)cgroup_fd,
		.attach_bpf_fd = (uint32_t)prog_fd,
		.attach_type = BPF_CGROUP_DEVICE,
		.attach_flags = BPF_F_ALLOW_MULTI,
	};
	int r = sys_bpf(BPF_PROG_ATTACH, &attr);

	return r < 0 ? err_errno(err, r, "attach the device rules") : 0;
}
