module gomux-go-peer

go 1.22

require github.com/Acebond/gomux v1.0.0

require (
	golang.org/x/crypto v0.16.0 // indirect
	golang.org/x/sys v0.15.0 // indirect
)
