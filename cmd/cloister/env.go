package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

type envCommand struct {
	Data string `required:"" type:"path" placeholder:"DIR" help:"Data directory of a running service."`
}

// Run prints what a shell needs to reach the service as its administrator.
func (c *envCommand) Run(out io.Writer) error {
	published, err := os.ReadFile(filepath.Join(c.Data, "endpoint"))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("no service has answered on %s yet: start \"cloister serve --data %s\" and wait for its ready line", c.Data, c.Data)
	}
	if err != nil {
		return err
	}
	endpoint, region, _ := strings.Cut(strings.TrimSpace(string(published)), "\n")
	key, err := readAdministrator(stateOf(c.Data))
	if errors.Is(err, fs.ErrPermission) {
		return errors.New("the administrator's key is readable by root only: run this as root")
	}
	if err != nil {
		return err
	}
	ca, err := filepath.Abs(filepath.Join(c.Data, "ca.pem"))
	if err != nil {
		return err
	}
	for _, v := range [][2]string{
		{"AWS_ENDPOINT_URL", endpoint},
		{"AWS_CA_BUNDLE", ca},
		{"AWS_ACCESS_KEY_ID", key.AccessKeyID},
		{"AWS_SECRET_ACCESS_KEY", key.SecretAccessKey},
		{"AWS_REGION", region},
		{"AWS_DEFAULT_REGION", region},
		{"NODE_EXTRA_CA_CERTS", ca},
	} {
		if _, err := fmt.Fprintf(out, "export %s=%s\n", v[0], shellQuote(v[1])); err != nil {
			return err
		}
	}
	return nil
}

// shellQuote makes s one word of a POSIX shell.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
