package boltdb

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie/internal/local"
)

func FuzzRecord(f *testing.F) {
	f.Add([]byte{}, uint64(0), int64(0), "", []byte{})
	f.Add(encode(local.Record{Revision: 7, Value: []byte("v")}), uint64(1), int64(0), "", []byte(nil))
	f.Add(encode(local.Record{Revision: 7, Expires: 9, Owner: "me"}), uint64(1<<63), int64(1), "owner", []byte("value"))
	f.Fuzz(func(t *testing.T, data []byte, revision uint64, expires int64, owner string, value []byte) {
		if r, err := decode(data); err == nil {
			require.Equal(t, data, encode(r), "decode loses nothing")
			require.NotZero(t, r.Revision)
			require.GreaterOrEqual(t, r.Expires, int64(0))
			require.NotNil(t, r.Value)
		}
		if revision == 0 || expires < 0 || len(owner) > maxOwner {
			return
		}
		in := local.Record{Revision: revision, Expires: expires, Owner: owner, Value: append([]byte{}, value...)}
		out, err := decode(encode(in))
		require.NoError(t, err)
		require.Equal(t, in, out)
	})
}
