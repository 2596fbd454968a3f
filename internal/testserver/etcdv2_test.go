package testserver

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEtcdV2ServesTheV2API(t *testing.T) {
	e := StartEtcdV2(t, EtcdOptions{})
	url := "http://" + e.Endpoints[0] + "/v2/keys"
	require.NoError(t, httpOK(t.Context(), url, nil))
	require.NoError(t, e.Members[0].Kill())
	require.NoError(t, e.Members[0].Restart())
	require.NoError(t, httpOK(t.Context(), url, nil))
}
