// Package loop attaches files to Linux loop devices, so that a file system image in a file,
// also in an unlinked or in-memory one, can be mounted.
//
// It does not mount anything and does not know what is in the file. Package
// sandbox/native calls it. Every device is marked with a name of the caller's, kept by the
// kernel beside the device, and Detach touches only devices whose name begins as asked: two
// servers on one host never take each other's.
//
// Invariant: a device that Attach returned frees itself when its last user is gone (the
// Device is closed and no mount is left), also when this process is killed. Nothing here is
// chosen by a tenant but the bytes of the file.
package loop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// MaxName is the greatest length of a name in bytes.
	MaxName = unix.LO_NAME_SIZE - 1

	// Between asking for a free device and taking it another process may have taken
	// it. With this many attempts about as many processes must race in step to fail one.
	maxAttempts = 128

	controlPath = "/dev/loop-control"
)

// Config describes a device to attach. File and Name are required.
type Config struct {
	File     *os.File // borrowed until Attach returns
	Name     string   // at most MaxName bytes
	Size     int64    // bytes of File to show, a multiple of 512; 0 is the whole file
	ReadOnly bool
	// DirectIO bypasses the page cache of the file, which would hold every page a
	// second time. The kernel falls back to buffered access where the file cannot do it.
	DirectIO bool
}

// A Device is an attached loop device.
type Device struct {
	File   *os.File // the opened block device
	Number int      // of /dev/loopN
	name   string
}

// Attach takes a free device and binds the file to it.
func Attach(c Config) (*Device, error) {
	if c.Name == "" || len(c.Name) > MaxName {
		return nil, fmt.Errorf("attach loop device: name %q is empty or longer than %d bytes", c.Name, MaxName)
	}
	control, err := os.OpenFile(controlPath, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("attach loop device: %w (is the loop module loaded? modprobe loop)", err)
	}
	defer control.Close()
	config := unix.LoopConfig{Fd: uint32(c.File.Fd())}
	config.Info.Sizelimit = uint64(c.Size)
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	if c.ReadOnly {
		config.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	if c.DirectIO {
		config.Info.Flags |= unix.LO_FLAGS_DIRECT_IO
	}
	copy(config.Info.File_name[:], c.Name)
	for range maxAttempts {
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("attach loop device: find a free one: %w", err)
		}
		device, err := take(number, c.Name, &config)
		if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENXIO) {
			continue // another process was faster, or has just removed the device
		}
		return device, err
	}
	return nil, fmt.Errorf("attach loop device: others took %d free ones before us", maxAttempts)
}

func take(number int, name string, config *unix.LoopConfig) (*Device, error) {
	path := devicePath(number)
	// Write access is needed to configure a device, also a read-only one.
	file, err := os.OpenFile(path, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("attach loop device: %w", err)
	}
	if err := unix.IoctlLoopConfigure(int(file.Fd()), config); err != nil {
		file.Close()
		return nil, fmt.Errorf("attach loop device: configure %s: %w", path, err)
	}
	return &Device{File: file, Number: number, name: name}, nil
}

// Rdev returns the device number, for mknod.
func (d *Device) Rdev() (uint64, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(int(d.File.Fd()), &stat); err != nil {
		return 0, fmt.Errorf("stat loop device %d: %w", d.Number, err)
	}
	return stat.Rdev, nil
}

// Close gives up our use of the device. It is freed when no mount uses it any more.
func (d *Device) Close() error { return d.File.Close() }

// AwaitFree blocks until the device no longer holds our file: until the last mount of it is
// gone. It is bounded by ctx.
func (d *Device) AwaitFree(ctx context.Context) error {
	for wait := 50 * time.Microsecond; ; wait = min(2*wait, 10*time.Millisecond) {
		name, err := nameOf(d.Number)
		if err != nil {
			return err
		}
		if name != d.name {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("loop device %d is still in use: %w", d.Number, ctx.Err())
		case <-time.After(wait):
		}
	}
}

// Detach frees all devices whose names begin with prefix, and returns how many there were.
// A device that is still mounted somewhere is freed by the kernel when it no longer is.
func Detach(prefix string) (int, error) {
	numbers, err := bound()
	if err != nil {
		return 0, err
	}
	var detached int
	var failed []error
	for _, n := range numbers {
		name, err := nameOf(n)
		if err != nil || !strings.HasPrefix(name, prefix) {
			failed = append(failed, err)
			continue
		}
		if err := clearDevice(n); err != nil {
			failed = append(failed, err)
			continue
		}
		detached++
	}
	return detached, errors.Join(failed...)
}

// Names returns the names of all bound loop devices of the host that begin with prefix.
func Names(prefix string) ([]string, error) {
	numbers, err := bound()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, n := range numbers {
		name, err := nameOf(n)
		if err != nil {
			return nil, err
		}
		if name != "" && strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	return names, nil
}

// bound returns the numbers of the devices that hold a file.
func bound() ([]int, error) {
	paths, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, fmt.Errorf("list loop devices: %w", err)
	}
	var numbers []int
	for _, p := range paths {
		n, err := strconv.Atoi(strings.TrimPrefix(strings.Split(p, "/")[3], "loop"))
		if err == nil {
			numbers = append(numbers, n)
		}
	}
	return numbers, nil
}

// nameOf returns "" if the device is free.
func nameOf(number int) (string, error) {
	// Opening a device counts as using it: look first whether it holds anything.
	if _, err := os.Stat(fmt.Sprintf("/sys/block/loop%d/loop/backing_file", number)); err != nil {
		return "", nil
	}
	file, err := os.Open(devicePath(number))
	if err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENXIO) {
			return "", nil
		}
		return "", fmt.Errorf("read name of loop device: %w", err)
	}
	defer file.Close()
	info, err := unix.IoctlLoopGetStatus64(int(file.Fd()))
	if errors.Is(err, unix.ENXIO) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read name of loop device %d: %w", number, err)
	}
	name, _, _ := bytes.Cut(info.File_name[:], []byte{0})
	return string(name), nil
}

func clearDevice(number int) error {
	file, err := os.OpenFile(devicePath(number), os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("detach loop device: %w", err)
	}
	defer file.Close()
	err = unix.IoctlSetInt(int(file.Fd()), unix.LOOP_CLR_FD, 0)
	if err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("detach loop device %d: %w", number, err)
	}
	return nil
}

func devicePath(number int) string { return "/dev/loop" + strconv.Itoa(number) }
