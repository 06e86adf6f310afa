module bulkhead/ebpf-example

go 1.26.0

toolchain go1.26.10

tool github.com/cilium/ebpf/examples/fentry

require (
	github.com/cilium/ebpf v0.21.0 // indirect
	golang.org/x/sys v0.37.0 // indirect
)
