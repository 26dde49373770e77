package runtimes

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Names inside images.
const (
	languageDirectory = "/var/lang"    // AWS has the interpreters here
	runtimeDirectory  = "/var/runtime" // LAMBDA_RUNTIME_DIR
	caFile            = "/etc/cloister/ca.pem"
)

// certificates is where Debian keeps the public certificate authorities.
const certificates = "/etc/ssl/certs/ca-certificates.crt"

// loadedByName are libraries that glibc and common extension modules load without naming
// them in their headers: name services of older glibcs, thread cancellation, C++.
var loadedByName = []string{
	"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1", "libresolv.so.2",
	"libnss_files.so.2", "libnss_dns.so.2", "libgcc_s.so.1", "libstdc++.so.6",
}

// addBase adds what every root has, the libraries among it.
func addBase(t *tree, l *libraries, ca []byte) error {
	// The names of the developer guide; processes run under a user id of their own that has no
	// name here, as no two environments share one.
	t.content("/etc/passwd", []byte("root:x:0:0:root:/root:/sbin/nologin\nsbx_user1051:x:993:990::/home/sbx_user1051:/sbin/nologin\n"))
	t.content("/etc/group", []byte("root:x:0:\nsbx_user1051:x:990:\n"))
	t.content("/etc/hosts", []byte("127.0.0.1 localhost\n"))
	t.content("/etc/nsswitch.conf", []byte("passwd: files\ngroup: files\nhosts: files dns\n"))
	t.content("/etc/resolv.conf", nil)
	t.directory("/proc", "/dev", "/tmp", "/opt", "/var/task", runtimeDirectory, languageDirectory, path.Dir(caFile))
	if len(ca) > 0 {
		t.content(caFile, ca)
	}
	// Debian's merged /usr.
	t.link("/bin", "usr/bin")
	t.link("/sbin", "usr/sbin")
	t.link("/lib", "usr/lib")
	t.link("/lib64", "usr/lib64")
	t.directory("/usr/bin", "/usr/sbin")

	if err := t.fileIfPresent(certificates, certificates); err != nil {
		return err
	}
	if err := addTimeZones(t); err != nil {
		return err
	}
	if err := addLocale(t); err != nil {
		return err
	}
	return addLibraries(t, l)
}

// addLibraries puts all libraries into one directory, the one that this machine's loader
// searches without being told, and makes the other usual names lead there.
func addLibraries(t *tree, l *libraries) error {
	if err := l.addIfPresent(loadedByName...); err != nil {
		return err
	}
	libc, err := filepath.EvalSymlinks(l.found["libc.so.6"])
	if err != nil {
		return fmt.Errorf("find the C library: %w", err)
	}
	directory := merged(filepath.Dir(libc)) // "/usr/lib/x86_64-linux-gnu"
	t.directory("/usr/lib", directory)
	if directory != "/usr/lib64" {
		// LD_LIBRARY_PATH names /lib64 and /usr/lib64, as on AWS.
		t.link("/usr/lib64", strings.TrimPrefix(directory, "/usr/"))
	}
	for name, host := range l.found {
		if err := t.file(path.Join(directory, name), host); err != nil {
			return err
		}
	}
	loader := path.Base(l.loader)
	if err := t.file(path.Join(directory, loader), l.loader); err != nil {
		return err
	}
	if at := merged(path.Dir(l.loader)); at != "/usr/lib64" && at != directory {
		t.link(path.Join(at, loader), path.Join(directory, loader))
	}
	return nil
}

// merged returns where a directory of the host's root lies when / and /usr are merged.
func merged(directory string) string {
	for _, top := range []string{"/lib", "/lib64", "/bin", "/sbin"} {
		if directory == top || strings.HasPrefix(directory, top+"/") {
			return "/usr" + directory
		}
	}
	return directory
}

const zoneInfo = "/usr/share/zoneinfo"

// addTimeZones adds the time zone database: about 0.7 MB. Left out are the copies of it for
// other clocks, and the tables that no program reads at run time.
func addTimeZones(t *tree) error {
	if _, err := os.Stat(zoneInfo); err != nil {
		t.directory(zoneInfo)
		return nil // glibc and Python know UTC without it
	}
	return t.folder(zoneInfo, zoneInfo, func(relative string, d fs.DirEntry) bool {
		switch relative {
		case "posix", "right", "localtime", "posixrules", "leapseconds", "leap-seconds.list", "tzdata.zi":
			return false
		}
		return true
	})
}

// addLocale makes LANG=en_US.UTF-8, which AWS sets, a locale that exists: under that name it has
// the rules of C.UTF-8. Without it locale.setlocale(LC_ALL, "") fails in customers' code.
func addLocale(t *tree) error {
	const locales, utf8 = "/usr/lib/locale", "/usr/lib/locale/C.utf8"
	if _, err := os.Stat(utf8); err != nil {
		return nil // a glibc that has C.UTF-8 built in
	}
	if err := t.folder(utf8, utf8, func(string, fs.DirEntry) bool { return true }); err != nil {
		return err
	}
	t.link(path.Join(locales, "en_US.utf8"), "C.utf8")
	return nil
}
