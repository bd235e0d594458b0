// The rules of opencontainers/runtime-tools for a configuration, as Debian ships that library: bundle directories on
// standard input, one JSON array of the broken rules for each on standard output. Its JSON schema is left out: the
// library fetches that from the network.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/hashicorp/go-multierror"
	"github.com/opencontainers/runtime-tools/validate"
)

func broken(bundle string) (found []string) {
	defer func() {
		if trouble := recover(); trouble != nil {
			found = []string{fmt.Sprint("the library fails: ", trouble)}
		}
	}()
	validator, err := validate.NewValidatorFromPath(bundle, false, "linux")
	if err != nil {
		return []string{"unreadable: " + err.Error()}
	}
	var all *multierror.Error
	for _, check := range []func() error{
		validator.CheckPlatform, validator.CheckRoot, validator.CheckMandatoryFields, validator.CheckSemVer,
		validator.CheckMounts, validator.CheckProcess, validator.CheckLinux, validator.CheckAnnotations,
		validator.CheckHooks,
	} {
		all = multierror.Append(all, check())
	}
	found = []string{}
	for _, one := range all.WrappedErrors() {
		if one != nil {
			found = append(found, strings.ReplaceAll(one.Error(), "\n", " "))
		}
	}
	return found
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		text, _ := json.Marshal(broken(lines.Text()))
		fmt.Println(string(text))
	}
}
