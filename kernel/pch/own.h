/* After the precompiled header: the names that kbuild gives each file (see cc). */
#undef KBUILD_MODNAME
#define KBUILD_MODFILE HUSK_KBUILD_MODFILE
#define KBUILD_BASENAME HUSK_KBUILD_BASENAME
#define KBUILD_MODNAME HUSK_KBUILD_MODNAME
#define __KBUILD_MODNAME HUSK___KBUILD_MODNAME
#ifdef HUSK_OWN_PR_FMT
#undef pr_fmt
#endif
