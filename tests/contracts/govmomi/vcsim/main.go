// vcsim plays a vCenter or, with -esx, a standalone host until its standard input ends.
//
// It prints one line of JSON once it listens: the address, the certificate (PEM) and
// the login that it takes.
package main

import (
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"flag"
	"io"
	"log"
	"net/url"
	"os"
	"runtime/debug"

	"github.com/vmware/govmomi/simulator"
)

const module = "github.com/vmware/govmomi"

type ready struct {
	Address     string `json:"address"` // host:port
	Certificate string `json:"certificate"`
	User        string `json:"user"`
	Password    string `json:"password"`
	Version     string `json:"version"` // of govmomi
}

func main() {
	esx := flag.Bool("esx", false, "a standalone host instead of a vCenter")
	listen := flag.String("listen", "127.0.0.2:0", "host:port, port 0 for any free one")
	machines := flag.Int("vm", 2, "virtual machines per resource pool")
	flag.Parse()

	model := simulator.VPX()
	if *esx {
		model = simulator.ESX()
	}
	model.Machine = *machines
	if err := model.Create(); err != nil {
		log.Fatal(err)
	}
	defer model.Remove()

	told := ready{User: "tester", Password: "the right one", Version: version()}
	model.Service.TLS = new(tls.Config)
	model.Service.Listen = &url.URL{
		Host: *listen,
		User: url.UserPassword(told.User, told.Password), // without it, any login is right
	}
	server := model.Service.NewServer()
	defer server.Close()

	told.Address = server.URL.Host
	told.Certificate = string(pem.EncodeToMemory(
		&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw},
	))
	if err := json.NewEncoder(os.Stdout).Encode(told); err != nil {
		log.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		log.Fatal(err)
	}
}

// version is that of govmomi which this program was built with.
func version() string {
	info, _ := debug.ReadBuildInfo()
	if info != nil {
		for _, one := range info.Deps {
			if one.Path == module {
				return one.Version
			}
		}
	}
	return "unknown"
}
