package testserver

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The test binary plays other parts when this variable says so: a small server,
// or a test binary that starts that server and dies.
const role = "VALKEYRIE_TESTSERVER_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "server":
		serve()
	case "wait", "panic", "exit":
		os.Exit(run(func() int { return startAndDie(os.Getenv(role)) }))
	}
	Main(m)
}

// serve is the small server: it counts its starts in a file, tells the count,
// and fails to start when asked to.
func serve() {
	if os.Args[1] == "fail" {
		fmt.Println("this server is not in the mood")
		os.Exit(1)
	}
	b, _ := os.ReadFile("starts")
	starts, _ := strconv.Atoi(string(b))
	if err := os.WriteFile("starts", []byte(strconv.Itoa(starts+1)), 0o600); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	err := http.ListenAndServe(os.Args[1], http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "start %d", starts+1)
	}))
	fmt.Println(err)
	os.Exit(1)
}

// newSmall makes a small server of a session.
func newSmall(s *session, arg string) (*Server, error) {
	ports, err := reserve(1)
	if err != nil {
		return nil, err
	}
	dir, err := s.mkdir("small")
	if err != nil {
		return nil, err
	}
	addr := ports[0].Addr()
	if arg == "" {
		arg = addr
	}
	c := command{name: "small", path: os.Args[0], args: []string{arg}, env: []string{role + "=server"}, dir: dir, ports: ports}
	c.check = httpCheck("http://" + addr)
	return s.newServer(c, addr), nil
}

// startAndDie is a test binary that starts a server, says which, and dies in one way or other.
func startAndDie(how string) int {
	server, err := newSmall(current, "")
	if err == nil {
		err = launch(server)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(server.proc.Pid, current.dir)
	switch how {
	case "panic":
		panic("a test panics")
	case "wait":
		select {} // until killed
	}
	return 0
}

func TestNoServerOutlivesTheTestBinary(t *testing.T) {
	for _, how := range []string{"wait", "panic", "exit"} {
		t.Run(how, func(t *testing.T) {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), role+"="+how)
			out, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			line, err := bufio.NewReader(out).ReadString('\n')
			require.NoError(t, err)
			pid, dir, ok := strings.Cut(strings.TrimSpace(line), " ")
			require.True(t, ok, line)
			server, err := strconv.Atoi(pid)
			require.NoError(t, err, line)
			if how == "wait" {
				require.True(t, alive(server))
				require.NoError(t, cmd.Process.Kill())
			}
			_ = cmd.Wait() // fails for all but exit
			require.Eventually(t, func() bool { return !alive(server) }, 20*time.Second, 5*time.Millisecond,
				"the server runs on")
			sweep(os.TempDir())
			require.NoDirExists(t, dir)
		})
	}
}

func TestSweepLeavesTheLivingAlone(t *testing.T) {
	tmp := t.TempDir()
	mine := filepath.Join(tmp, dirPrefix+strconv.Itoa(os.Getpid())+"-1")
	other := filepath.Join(tmp, dirPrefix+"keep")
	require.NoError(t, os.Mkdir(mine, 0o700))
	require.NoError(t, os.Mkdir(other, 0o700))
	sweep(tmp)
	require.DirExists(t, mine)
	require.DirExists(t, other)
}
