# A port of 127.0.0.1 that is free now. What starts servers runs one after the other.
free_port() {
	python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
