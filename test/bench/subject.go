package main

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"cloister/test/bench/floor"
	"cloister/test/service"
)

const event = `"hello, floor; hello, floor"` // a form that both languages write alike

// A subject is one function, in Cloister and as plain processes.
type subject struct {
	name     string
	function string
	target   *target
	client   *lambda.Client
	command  []string // starts the same runtime without Cloister
	packed   []byte
}

// settings are what the AWS SDK needs to reach the service.
func (b *bench) settings(ctx context.Context) (aws.Config, error) {
	ca, err := os.ReadFile(b.service.Getenv("AWS_CA_BUNDLE"))
	if err != nil {
		return aws.Config{}, err
	}
	return config.LoadDefaultConfig(ctx,
		config.WithRegion(b.service.Getenv("AWS_REGION")),
		config.WithBaseEndpoint(b.service.Endpoint),
		config.WithCustomCABundle(bytes.NewReader(ca)),
		config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(b.service.Getenv("AWS_ACCESS_KEY_ID"), b.service.Getenv("AWS_SECRET_ACCESS_KEY"), "")))
}

const trust = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"lambda.amazonaws.com"},"Action":"sts:AssumeRole"}]}`

// deploy makes the functions, with one full vCPU each: the floor has no limit either.
func (b *bench) deploy(ctx context.Context) ([]*subject, error) {
	settings, err := b.settings(ctx)
	if err != nil {
		return nil, err
	}
	role, err := iam.NewFromConfig(settings).CreateRole(ctx, &iam.CreateRoleInput{RoleName: aws.String("bench"), AssumeRolePolicyDocument: aws.String(trust)})
	if err != nil {
		return nil, err
	}
	python, err := exec.CommandContext(ctx, "/usr/bin/python3", "-c", "import sys; print('python%d.%d' % sys.version_info[:2])").Output()
	if err != nil {
		return nil, err
	}
	version := strings.TrimSpace(string(python))
	goZip, err := service.BuildGo(ctx, "./test/functions/echo-go")
	if err != nil {
		return nil, err
	}
	pythonZip, err := service.ZipFolder("test/functions/echo-python")
	if err != nil {
		return nil, err
	}
	bootstrap, err := filepath.Abs("runtimes/bootstrap/bootstrap.py")
	if err != nil {
		return nil, err
	}
	client := lambda.NewFromConfig(settings)
	subjects := []*subject{
		{name: "Go (provided.al2023)", function: "echo-go", client: client, packed: goZip, command: []string{"bootstrap"}},
		{name: "Python (" + version + ")", function: "echo-python", client: client, packed: pythonZip, command: []string{"/usr/bin/" + version, bootstrap}},
	}
	for i, runtime := range []string{"provided.al2023", version} {
		s := subjects[i]
		if _, err := client.CreateFunction(ctx, &lambda.CreateFunctionInput{
			FunctionName: &s.function, Runtime: types.Runtime(runtime), Handler: aws.String("app.handler"), Role: role.Role.Arn,
			MemorySize: aws.Int32(1769), Timeout: aws.Int32(30), Code: &types.FunctionCode{ZipFile: s.packed},
		}); err != nil {
			return nil, err
		}
		waiter := lambda.NewFunctionActiveV2Waiter(client)
		if err := waiter.Wait(ctx, &lambda.GetFunctionInput{FunctionName: &s.function}, time.Minute); err != nil {
			return nil, err
		}
		if s.target, err = b.signedTarget(ctx, s, settings); err != nil {
			return nil, err
		}
	}
	return subjects, nil
}

// signedTarget signs one Invoke, which stays valid for five minutes; load sends it again and again.
func (b *bench) signedTarget(ctx context.Context, s *subject, settings aws.Config) (*target, error) {
	r, err := http.NewRequest("POST", b.service.Endpoint+"/2015-03-31/functions/"+s.function+"/invocations", strings.NewReader(event))
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(event))
	keys, err := settings.Credentials.Retrieve(ctx)
	if err != nil {
		return nil, err
	}
	if err := v4.NewSigner().SignHTTP(ctx, keys, r, hex.EncodeToString(sum[:]), "lambda", settings.Region, time.Now()); err != nil {
		return nil, err
	}
	var raw bytes.Buffer
	if err := r.Write(&raw); err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(b.service.Getenv("AWS_CA_BUNDLE"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	pids, err := children(b.service.PID())
	if err != nil {
		return nil, err
	}
	return &target{name: "Cloister " + s.name, pids: pids, address: r.URL.Host, tls: &tls.Config{RootCAs: roots}, request: raw.Bytes(), event: event}, nil
}

// start runs the subject's runtime against a floor; the process has no limits and no sandbox.
func (s *subject) start(runtimeAPI, folder string) (*exec.Cmd, error) {
	root := filepath.Join(folder, s.function)
	command := append([]string{}, s.command...)
	if command[0] == "bootstrap" {
		command[0] = filepath.Join(root, "bootstrap")
	}
	if err := unpack(s.packed, root); err != nil {
		return nil, err
	}
	c := exec.Command(command[0], command[1:]...)
	c.Env = []string{
		"PATH=/usr/bin:/bin", "LANG=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1", "_HANDLER=app.handler", "LAMBDA_TASK_ROOT=" + root, "AWS_REGION=us-east-1",
		"AWS_LAMBDA_FUNCTION_NAME=echo", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=1769", "AWS_LAMBDA_FUNCTION_VERSION=$LATEST",
		"AWS_LAMBDA_LOG_GROUP_NAME=/aws/lambda/echo", "AWS_LAMBDA_LOG_STREAM_NAME=floor",
		"AWS_LAMBDA_RUNTIME_API=" + runtimeAPI,
	}
	c.Dir = root
	c.Stderr = os.Stderr
	return c, c.Start()
}

// forkExec is the time of a plain start of the runtime to its first poll.
func (s *subject) forkExec(folder string) (time.Duration, error) {
	certificate, err := selfSigned()
	if err != nil {
		return 0, err
	}
	f, err := floor.Start(certificate)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	process, err := s.start(f.RuntimeAPI.Addr().String(), folder)
	if err != nil {
		f.Close()
		return 0, err
	}
	defer f.Close()
	defer process.Wait()
	defer process.Process.Kill()
	select {
	case polled := <-f.Polled:
		return polled.Sub(began), nil
	case <-time.After(30 * time.Second):
		return 0, fmt.Errorf("%s did not poll", s.name)
	}
}

// coldStart makes the function's environments outdated, by new code or only by a new description, invokes
// it, and returns the time that the worker logged for making the new one, from the order to the
// runtime's first poll.
func (b *bench) coldStart(ctx context.Context, s *subject, newCode bool) (time.Duration, error) {
	time.Sleep(500 * time.Millisecond) // the pool of parked sandboxes fills again
	var err error
	if newCode {
		var packed []byte
		if packed, err = s.repack(); err == nil {
			_, err = s.client.UpdateFunctionCode(ctx, &lambda.UpdateFunctionCodeInput{FunctionName: &s.function, ZipFile: packed})
		}
	} else {
		_, err = s.client.UpdateFunctionConfiguration(ctx, &lambda.UpdateFunctionConfigurationInput{
			FunctionName: &s.function, Description: aws.String(time.Now().String()),
		})
	}
	if err != nil {
		return 0, err
	}
	waiter := lambda.NewFunctionUpdatedV2Waiter(s.client)
	if err := waiter.Wait(ctx, &lambda.GetFunctionInput{FunctionName: &s.function}, time.Minute); err != nil {
		return 0, err
	}
	time.Sleep(200 * time.Millisecond) // outdated environments end
	b.log.reset()
	if _, err := s.client.Invoke(ctx, &lambda.InvokeInput{FunctionName: &s.function, Payload: []byte(event)}); err != nil {
		return 0, err
	}
	return b.log.cold()
}

// repack returns the package with one more file, which no worker has seen.
func (s *subject) repack() ([]byte, error) {
	files := map[string][]byte{"new": []byte(time.Now().String())}
	z, err := zip.NewReader(bytes.NewReader(s.packed), int64(len(s.packed)))
	if err != nil {
		return nil, err
	}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			return nil, err
		}
		if files[f.Name], err = io.ReadAll(r); err != nil {
			return nil, err
		}
	}
	return service.Zip(files)
}

// coldLog reads the worker's log for the time that a cold start took.
type coldLog struct {
	mu   sync.Mutex
	text []byte
}

func (l *coldLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	if over := len(l.text) - 64<<10; over > 0 {
		l.text = append(l.text[:0], l.text[over:]...)
	}
	return len(p), nil
}

func (l *coldLog) reset() {
	l.mu.Lock()
	l.text = l.text[:0]
	l.mu.Unlock()
}

func (l *coldLog) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

var createdLine = regexp.MustCompile(`msg="environment created".* took=(\S+)`)

func (l *coldLog) cold() (time.Duration, error) {
	for range 100 {
		if m := createdLine.FindStringSubmatch(l.tail()); m != nil {
			return time.ParseDuration(m[1])
		}
		time.Sleep(10 * time.Millisecond)
	}
	return 0, fmt.Errorf("the worker logged no new environment:\n%s", l.tail())
}

// unpack writes a package's files, once.
func unpack(packed []byte, root string) error {
	if _, err := os.Stat(root); err == nil {
		return nil
	}
	z, err := zip.NewReader(bytes.NewReader(packed), int64(len(packed)))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			return err
		}
		b, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(root, filepath.Base(f.Name)), b, f.Mode().Perm()); err != nil {
			return err
		}
	}
	return nil
}
