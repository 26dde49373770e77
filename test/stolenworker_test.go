package test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	varint "encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	awslambda "github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"cloister/artifact"
	"cloister/internal/channel"
	"cloister/lambda"
	"cloister/test/service"
)

// The worker protocol's numbers, as somebody who has taken a worker over knows them.
const (
	kindAttach, kindCreate, kindInvoke, kindDestroy, kindCheckRuntime, kindPrepareRuntime channel.Kind = 16, 17, 18, 19, 20, 21
	kindRedeem, kindPipe, kindLogs                                                        channel.Kind = 64, 65, 66
)

// A house is a real front process whose serve and whose only worker are this test: it has the worker's
// certificate and key, and sees all that the front tells a worker.
type house struct {
	t          *testing.T
	data       string
	authority  *channel.Authority
	credential channel.Credential // the stolen one
	clients    *net.TCPListener
	toFront    *net.UnixListener
	front      *exec.Cmd
	order      *os.File // closing it ends the front
	root       *x509.CertPool
	key        [2]string // of the administrator: its id and its secret

	orders chan *order
}

// An order for an environment, which the front waits for until it is answered.
type order struct {
	lambda.EnvironmentSpec
	answer chan error
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, data: t.TempDir(), orders: make(chan *order, 16)}
	run := t.TempDir()
	var err error
	if h.authority, err = channel.NewAuthority("stolen"); err != nil {
		t.Fatal(err)
	}
	if h.credential, err = h.authority.Issue(channel.Worker); err != nil {
		t.Fatal(err)
	}
	if h.clients, err = net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	if h.toFront, err = net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(run, "front.sock"), Net: "unix"}); err != nil {
		t.Fatal(err)
	}
	own, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(run, "worker.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	server, err := channel.NewServer(h.credential, channel.Front, h.serve, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(own)
	t.Cleanup(func() {
		h.stop()
		own.Close()
		server.Close()
		h.toFront.Close()
		h.clients.Close()
	})
	if err := os.MkdirAll(h.state(), 0o700); err != nil {
		t.Fatal(err)
	}
	h.start()
	return h
}

func (h *house) state() string { return filepath.Join(h.data, "front", "state") }

// start runs a front, as serve does, and waits until it answers.
func (h *house) start() {
	h.t.Helper()
	credential, err := h.authority.Issue(channel.Front)
	if err != nil {
		h.t.Fatal(err)
	}
	order, orderEnd, err1 := os.Pipe()
	reports, reportEnd, err2 := os.Pipe()
	clients, err3 := h.clients.File()
	toFront, err4 := h.toFront.File()
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		h.t.Fatal(err)
	}
	h.front, h.order = exec.Command(binary, "front"), orderEnd
	log := &testLog{t: h.t}
	h.front.Stderr = log
	h.front.ExtraFiles = []*os.File{order, reportEnd, clients, toFront}
	if err := h.front.Start(); err != nil {
		h.t.Fatal(err)
	}
	for _, f := range h.front.ExtraFiles {
		f.Close()
	}
	err = json.NewEncoder(orderEnd).Encode(map[string]any{
		"Credential": credential, "Directory": h.state(), "WorkerSocket": filepath.Join(filepath.Dir(h.toFront.Addr().String()), "worker.sock"),
		"Host": "127.0.0.1", "Region": "us-east-1", "Drain": time.Second,
	})
	if err != nil {
		h.t.Fatal(err)
	}
	lines := json.NewDecoder(reports)
	var report struct {
		CA    []byte
		Ready bool
		Error string
	}
	for !report.Ready {
		if err := lines.Decode(&report); err != nil || report.Error != "" {
			h.t.Fatalf("the front did not start: %v %s\n%s", err, report.Error, log.text())
		}
		if report.CA != nil {
			h.root = x509.NewCertPool()
			h.root.AppendCertsFromPEM(report.CA)
		}
	}
	h.readKey()
}

// readKey takes the administrator's key from "cloister env".
func (h *house) readKey() {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.data, "endpoint"), []byte("https://"+h.clients.Addr().String()+"\nus-east-1\n"), 0o644); err != nil {
		h.t.Fatal(err)
	}
	out, err := exec.CommandContext(h.t.Context(), binary, "env", "--data", h.data).Output()
	if err != nil {
		h.t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		name, value, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "=")
		switch name {
		case "AWS_ACCESS_KEY_ID":
			h.key[0] = strings.Trim(value, "'")
		case "AWS_SECRET_ACCESS_KEY":
			h.key[1] = strings.Trim(value, "'")
		}
	}
}

func (h *house) stop() {
	if h.front != nil {
		h.order.Close()
		h.front.Wait()
		h.front = nil
	}
}

// serve is what the stolen worker tells the front.
func (h *house) serve(ctx context.Context, c *channel.Conn, r *channel.Request) error {
	switch r.Kind {
	case kindAttach:
		if err := c.Send(channel.Data, nil, nil); err != nil {
			return err
		}
		_, _, err := c.Receive(nil)
		return err
	case kindCheckRuntime:
		return c.Send(channel.Done, map[string]string{"VersionARN": "arn:aws:lambda:us-east-1::runtime:x"}, nil)
	case kindPrepareRuntime, kindDestroy:
		return c.Send(channel.Done, struct{}{}, nil)
	case kindCreate:
		o := &order{answer: make(chan error, 1)}
		if err := r.Header(&o.EnvironmentSpec); err != nil {
			return err
		}
		h.orders <- o
		select {
		case err := <-o.answer:
			if err != nil {
				return c.SendFault(&channel.RemoteError{Code: uint8(lambda.KindOf(err)), Operation: "create", Message: err.Error()})
			}
			return c.Send(channel.Done, map[string]string{"EnvironmentID": "e-" + o.LogStream}, nil)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return c.SendFault(&channel.RemoteError{Code: uint8(lambda.Internal), Operation: "worker", Message: "not played here"})
}

func (h *house) config() aws.Config {
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: h.root, MinVersion: tls.VersionTLS12}}
	h.t.Cleanup(transport.CloseIdleConnections)
	return aws.Config{
		Region: "us-east-1", BaseEndpoint: new("https://" + h.clients.Addr().String()), HTTPClient: &http.Client{Transport: transport},
		Credentials: credentials.NewStaticCredentialsProvider(h.key[0], h.key[1], ""), Retryer: func() aws.Retryer { return aws.NopRetryer{} },
	}
}

// deploy makes an active function and returns its code as it lies sealed on the disk.
func (h *house) deploy(name, role string) (sealed []byte) {
	h.t.Helper()
	disk := &service.Service{Data: h.data}
	before := sealedFiles(h.t, disk, "image")
	zip, err := service.Zip(map[string][]byte{"app.py": []byte("# the secret code of " + name)})
	if err != nil {
		h.t.Fatal(err)
	}
	client := awslambda.NewFromConfig(h.config())
	if _, err := client.CreateFunction(h.t.Context(), &awslambda.CreateFunctionInput{
		FunctionName: &name, Runtime: types.RuntimePython311, Handler: new("app.handler"), Role: &role, Code: &types.FunctionCode{ZipFile: zip},
	}); err != nil {
		h.t.Fatal(err)
	}
	if err := awslambda.NewFunctionActiveV2Waiter(client).Wait(h.t.Context(), &awslambda.GetFunctionInput{FunctionName: &name}, time.Minute); err != nil {
		h.t.Fatal(err)
	}
	_, sealed = newSealedFile(h.t, disk, before)
	return sealed
}

// ordered has the function invoked and returns the order that the front gives for it. The caller answers it.
func (h *house) ordered(function string) *order {
	h.t.Helper()
	client := awslambda.NewFromConfig(h.config())
	go client.Invoke(h.t.Context(), &awslambda.InvokeInput{FunctionName: &function}) // fails, because nothing is invoked here
	select {
	case o := <-h.orders:
		return o
	case <-time.After(30 * time.Second):
		h.t.Fatal("the front ordered no environment")
		return nil
	}
}

// channelAs opens exchanges with the front under a credential.
func (h *house) channelAs(own channel.Credential, peer channel.Role, socket string) *channel.Client {
	h.t.Helper()
	c, err := channel.NewClient(func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "unix", socket) }, own, peer)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	return c
}

// An exchange is all that the front answers to one request.
type exchange struct {
	key   []byte // of the first frame, if it has one
	bytes []byte // of all bodies
	done  bool
	err   error
}

// ask makes one exchange. A front that says nothing within the time closes it.
func (h *house) ask(c *channel.Client, kind channel.Kind, header any, body []byte) (e exchange) {
	h.t.Helper()
	conn, err := c.Open(h.t.Context())
	if err != nil {
		return exchange{err: err}
	}
	defer conn.Close()
	defer time.AfterFunc(10*time.Second, func() { conn.Close() }).Stop()
	if e.err = conn.Send(kind, header, body); e.err != nil {
		return e
	}
	for !e.done {
		var head struct{ Key []byte }
		got, b, err := conn.Receive(&head)
		if err != nil {
			e.err = err
			return e
		}
		if head.Key != nil {
			e.key = head.Key
		}
		e.bytes = append(e.bytes, b...)
		e.done = got == channel.Done
	}
	return e
}

type redeemRequest struct{ Grant string }

// codeOf opens what a redeemed grant gave.
func codeOf(e exchange, a lambda.Artifact) (string, error) {
	var image bytes.Buffer
	err := artifact.Unseal(&image, bytes.NewReader(e.bytes), e.key, a)
	return image.String(), err
}

func TestAStolenWorkerIdentityReadsNoOtherFunctionsArtifact(t *testing.T) {
	h := newHouse(t)
	role := h.makeRole("worker")
	h.deploy("mine", role)
	victim := h.deploy("victim", role)
	c := h.channelAs(h.credential, channel.Front, h.toFront.Addr().String())
	o := h.ordered("mine")
	attempts := 0
	// denied checks that an exchange gave nothing.
	denied := func(what string, e exchange) {
		t.Helper()
		attempts++
		remote, answered := errors.AsType[*channel.RemoteError](e.err)
		if e.key != nil || len(e.bytes) > 0 || e.err == nil {
			t.Errorf("%s gave %d bytes and a key %v, %v", what, len(e.bytes), e.key != nil, e.err)
		} else if answered && (remote.Code != uint8(lambda.AccessDenied) || remote.Message != "the grant is not valid") {
			t.Errorf("%s told %v", what, remote)
		}
	}
	redeem := func(grant string) exchange { return h.ask(c, kindRedeem, redeemRequest{grant}, nil) }

	// Without a grant there is nothing to list and nothing to fetch.
	for kind := range 256 {
		if k := channel.Kind(kind); k != kindPipe && k != kindLogs {
			denied(fmt.Sprint("exchange ", kind), h.ask(c, k, map[string]string{
				"FunctionName": "victim", "ID": "victim", "Key": "victim", "Owner": o.Version.ID.AccountID, "EnvironmentID": "victim", "Identifier": "python3.11",
			}, []byte("victim")))
		}
	}
	imageID := hex.EncodeToString(make([]byte, 32))
	for name, guess := range map[string]string{
		"no grant": "", "the function's name": "victim", "its ARN": strings.Replace(o.Version.ARN, "mine", "victim", 1), "the own image's id": o.Version.Code.ID,
		"another image's id": imageID, "a path": "../../image/" + imageID, "the own stream": o.LogStream, "a token of the role": o.Credentials.SessionToken,
		"zeros": strings.Repeat("A", 26), "the own grant, longer": o.Grant + "A", "the own grant, cut": o.Grant[:len(o.Grant)-1], "the own grant twice": o.Grant + o.Grant,
		"the own grant in small letters": strings.ToLower(o.Grant), "the own grant in base64": base64.StdEncoding.EncodeToString([]byte(o.Grant)), "huge": strings.Repeat("A", 900_000),
	} {
		denied(name, redeem(guess))
	}
	for i := range len(o.Grant) * 8 {
		altered := []byte(o.Grant)
		altered[i/8] ^= 1 << (i % 8)
		denied(fmt.Sprint("the own grant with bit ", i, " changed"), redeem(string(altered)))
	}

	// The own grant gives the own code, whatever else is said, and once, also when asked for at the same time.
	got := make([]exchange, 8)
	var all sync.WaitGroup
	for i := range got {
		all.Go(func() {
			got[i] = h.ask(c, kindRedeem, map[string]any{"Grant": o.Grant, "Holder": "front", "ID": imageID, "Artifact": map[string]string{"ID": imageID}, "FunctionName": "victim"}, nil)
		})
	}
	all.Wait()
	var mine exchange
	opened := 0
	for _, e := range got {
		if e.err == nil {
			opened++
			mine = e
		} else {
			denied("the own grant at the same time", e)
		}
	}
	if code, err := codeOf(mine, o.Version.Code); opened != 1 || err != nil || !strings.Contains(code, "the secret code of mine") {
		t.Fatalf("the own grant was redeemed %d times: %v", opened, err)
	}
	denied("the own grant again", redeem(o.Grant))
	if err := artifact.Unseal(io.Discard, bytes.NewReader(victim), mine.key, o.Version.Code); lambda.KindOf(err) != lambda.Corrupt {
		t.Errorf("the own key on the victim's sealed code, from a stolen disk: %v, want Corrupt", err)
	}
	o.answer <- nil

	// A grant that was not redeemed ends with its order.
	unused := h.ordered("mine")
	unused.answer <- errors.New("no")
	eventually(t, "a grant is good after its order was answered", func() bool {
		return len(h.orders) == 0 && redeem(unused.Grant).err != nil
	})
	denied("the grant of an answered order", redeem(unused.Grant))

	// Nor does it survive the front.
	held := h.ordered("mine")
	h.stop()
	h.start()
	denied("a grant of the front before this one", h.ask(c, kindRedeem, redeemRequest{held.Grant}, nil))
	held.answer <- errors.New("gone")
	if attempts < 25 {
		t.Errorf("only %d attempts", attempts)
	}
}

func TestAStolenWorkerIdentityIsNobodyElse(t *testing.T) {
	h := newHouse(t)
	socket := h.toFront.Addr().String()
	// As front towards another worker.
	other, err := h.authority.Issue(channel.Worker)
	if err != nil {
		t.Fatal(err)
	}
	reached := false
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "other.sock"))
	if err != nil {
		t.Fatal(err)
	}
	server, err := channel.NewServer(other, channel.Front, func(context.Context, *channel.Conn, *channel.Request) error { reached = true; return io.EOF }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	defer func() { l.Close(); server.Close() }()
	if e := h.ask(h.channelAs(h.credential, channel.Worker, l.Addr().String()), kindCreate, struct{}{}, nil); e.err == nil || reached {
		t.Error("a worker gave another worker an order")
	}
	// With the identity of another installation, and with a changed one.
	foreign, err := channel.NewAuthority("stolen") // of the same name
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := foreign.Issue(channel.Worker)
	if err != nil {
		t.Fatal(err)
	}
	front, err := foreign.Issue(channel.Front)
	if err != nil {
		t.Fatal(err)
	}
	mixed := stranger
	mixed.Root = h.credential.Root
	asFront := h.credential
	asFront.Certificate, asFront.Key = front.Certificate, front.Key
	for name, own := range map[string]channel.Credential{"another installation": stranger, "another installation that trusts ours": mixed, "a front of another installation": asFront} {
		if e := h.ask(h.channelAs(own, channel.Front, socket), kindRedeem, redeemRequest{"x"}, nil); e.err == nil || isAnswer(e.err) {
			t.Errorf("%s was answered: %v", name, e.err)
		}
	}
	// A control: the stolen identity itself is answered.
	if e := h.ask(h.channelAs(h.credential, channel.Front, socket), kindRedeem, redeemRequest{"x"}, nil); !isAnswer(e.err) {
		t.Errorf("the worker's own identity: %v", e.err)
	}
}

func isAnswer(err error) bool {
	_, ok := errors.AsType[*channel.RemoteError](err)
	return ok
}

func TestAStolenWorkerIdentityWritesNoOtherFunctionsLog(t *testing.T) {
	h := newHouse(t)
	role := h.makeRole("worker")
	h.deploy("mine", role)
	h.deploy("victim", role)
	c := h.channelAs(h.credential, channel.Front, h.toFront.Addr().String())
	o := h.ordered("mine")
	account, group, stream := o.Version.ID.AccountID, o.Version.LogGroup, o.LogStream
	const text = "REPORT forged"
	events := varint.AppendUvarint(varint.AppendVarint(nil, time.Now().UnixMilli()), uint64(len(text))) // as package worker spells events
	events = append(events, text...)
	write := func(account, group, stream string) error {
		return h.ask(c, kindLogs, map[string]string{"AccountID": account, "Group": group, "Stream": stream}, events).err
	}
	for name, where := range map[string][3]string{
		"the victim's group":            {account, "/aws/lambda/victim", stream},
		"the victim's group, new":       {account, "/aws/lambda/victim", "2026/01/01/[$LATEST]0123456789abcdef0123456789abcdef"},
		"another account":               {"222222222222", group, stream},
		"another stream of its own":     {account, group, "2026/01/01/[$LATEST]0123456789abcdef0123456789abcdef"},
		"no stream":                     {account, group, ""},
		"a group that is none":          {account, "\x00", stream},
		"a group of the administrator":  {account, "/audit", "2026"},
		"the own stream with a newline": {account, group, stream + "\n"},
	} {
		if err := write(where[0], where[1], where[2]); !isAnswer(err) || !strings.Contains(err.Error(), "no environment that was ordered of this worker") {
			t.Errorf("%s: %v, want a refusal", name, err)
		}
	}
	// A control: the own stream takes the same events.
	if err := write(account, group, stream); err != nil {
		t.Errorf("the own stream: %v", err)
	}
	logs := cloudwatchlogs.NewFromConfig(h.config())
	groups, err := logs.DescribeLogGroups(t.Context(), &cloudwatchlogs.DescribeLogGroupsInput{})
	if err != nil || len(groups.LogGroups) != 1 || *groups.LogGroups[0].LogGroupName != group {
		t.Errorf("there are the groups %v, %v; want only %s", groups, err, group)
	}
	found, err := logs.FilterLogEvents(t.Context(), &cloudwatchlogs.FilterLogEventsInput{LogGroupName: &group})
	if err != nil || len(found.Events) != 1 || *found.Events[0].LogStreamName != stream {
		t.Errorf("the own group holds %v, %v", found, err)
	}
	o.answer <- errors.New("done")
}

func TestAStolenWorkerIdentityCallsNothingThatItsFunctionsMayNot(t *testing.T) {
	h := newHouse(t)
	role := h.makeRole("worker")
	h.deploy("mine", role)
	h.deploy("victim", role)
	c := h.channelAs(h.credential, channel.Front, h.toFront.Addr().String())
	o := h.ordered("mine")
	// pipe is a connection through the worker's way to the gateway.
	pipe := func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := c.Open(ctx)
		if err != nil {
			return nil, err
		}
		if err := conn.Send(kindPipe, nil, nil); err != nil {
			return nil, err
		}
		return conn.Stream(), nil
	}
	raw, err := pipe(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprint(raw, "GET /2015-03-31/functions/ HTTP/1.1\r\nHost: x\r\n\r\n")
	if line, _ := bufio.NewReader(raw).ReadString('\n'); strings.Contains(line, " 200 ") {
		t.Errorf("a call without TLS was answered %q", line)
	}
	transport := &http.Transport{DialContext: pipe, TLSClientConfig: &tls.Config{RootCAs: h.root, ServerName: "localhost"}}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Get("https://localhost/2015-03-31/functions/victim")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(response.Body)
	response.Body.Close()
	if response.StatusCode != http.StatusForbidden || !bytes.Contains(body, []byte("Missing Authentication Token")) {
		t.Errorf("a call without signature was answered %d: %s", response.StatusCode, body)
	}
	config := h.config()
	config.HTTPClient, config.BaseEndpoint = &http.Client{Transport: transport}, new("https://localhost")
	config.Credentials = credentials.NewStaticCredentialsProvider(o.Credentials.AccessKeyID, o.Credentials.SecretAccessKey, o.Credentials.SessionToken)
	client := awslambda.NewFromConfig(config)
	victim := new("victim")
	for name, err := range map[string]error{
		"GetFunction":        second(client.GetFunction(t.Context(), &awslambda.GetFunctionInput{FunctionName: victim})),
		"ListFunctions":      second(client.ListFunctions(t.Context(), &awslambda.ListFunctionsInput{})),
		"Invoke":             second(client.Invoke(t.Context(), &awslambda.InvokeInput{FunctionName: victim})),
		"UpdateFunctionCode": second(client.UpdateFunctionCode(t.Context(), &awslambda.UpdateFunctionCodeInput{FunctionName: victim, ZipFile: []byte("x")})),
		"DeleteFunction":     second(client.DeleteFunction(t.Context(), &awslambda.DeleteFunctionInput{FunctionName: victim})),
		"GetLogEvents": second(cloudwatchlogs.NewFromConfig(config).FilterLogEvents(t.Context(),
			&cloudwatchlogs.FilterLogEventsInput{LogGroupName: new("/aws/lambda/victim")})),
	} {
		if err == nil || !strings.Contains(err.Error(), "AccessDenied") {
			t.Errorf("%s with the keys of the function's role: %v, want AccessDenied", name, err)
		}
	}
	o.answer <- errors.New("done")
}

// second is the error of a call.
func second[T any](_ T, err error) error { return err }

// makeRole makes an execution role without permissions.
func (h *house) makeRole(name string) string {
	h.t.Helper()
	out, err := iam.NewFromConfig(h.config()).CreateRole(h.t.Context(), &iam.CreateRoleInput{RoleName: &name, AssumeRolePolicyDocument: new(trustLambda)})
	if err != nil {
		h.t.Fatal(err)
	}
	return *out.Role.Arn
}
