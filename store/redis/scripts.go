package redis

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
)

// script is a Lua script. The server keeps those that it ran once, and runs them
// by the hash of their source.
type script struct{ source, hash string }

func newScript(source string) *script {
	sum := sha1.Sum([]byte(source))
	return &script{source: source, hash: hex.EncodeToString(sum[:])}
}

// Every script makes at most one write. Several would be a transaction in the
// append-only file, and until late 2025 Redis (issue 14541) and Valkey (issue
// 3983) dropped transactions when they loaded that file while the user "default"
// was off.

// luaRevision defines rev(key): the 8 bytes of the revision of what is stored
// under a key; false when there is nothing; "" when it cannot be read as a value;
// and whether it is a lock. See value.go for the layout.
const luaRevision = `
local function rev(key)
  local head = redis.pcall('GETRANGE', key, 0, 11)
  if type(head) ~= 'string' then return '' end
  if string.sub(head, 1, 3) == '\154VK' and #head > 3 then
    local kind = string.byte(head, 4)
    if #head < 12 or kind < 1 or kind > 2 or (kind == 2) ~= (string.byte(head, 5) > 127) then return '' end
    return string.sub(head, 5, 12), kind == 2
  end
  local all = redis.call('GET', key)
  if not all then return false end
  if string.sub(all, 1, 3) == '\154VK' then return '' end
  local hex = string.sub(redis.sha1hex(all), 1, 16)
  return (string.gsub(hex, '..', function(h) return string.char(tonumber(h, 16)) end))
end
`

// luaToken defines token(bytes), the token in the revision of a lock.
const luaToken = `
local function token(bytes)
  local t = 0
  for i = 2, 8 do t = t * 256 + string.byte(bytes, i) end
  return t
end
`

// What scripts answer that act on one condition.
const (
	applied int64 = iota
	absent
	modified
)

var (
	// updateScript writes a key at a revision: value, revision, TTL in
	// milliseconds or 0.
	updateScript = newScript(luaRevision + `
local at = rev(KEYS[1])
if at == false then return 1 end
if at ~= ARGV[1] then return 2 end
if ARGV[3] == '0' then
  redis.call('SET', KEYS[1], ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return 0
`)

	// deleteScript deletes a key at a revision.
	deleteScript = newScript(luaRevision + `
local at = rev(KEYS[1])
if at == false then return 1 end
if at ~= ARGV[1] then return 2 end
redis.call('DEL', KEYS[1])
return 0
`)

	// renewScript starts the TTL in milliseconds of a key at a revision anew.
	renewScript = newScript(luaRevision + `
local at = rev(KEYS[1])
if at == false then return 1 end
if at ~= ARGV[1] then return 2 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 0
`)

	// lockScript takes a lock: value, owner, TTL in milliseconds. It answers the
	// token, 0 when the lock is held by somebody else. KEYS[2] has a token that
	// was used before. Before Redis 5 a script that asks for the time must say
	// first that its effects are to be replicated, and not the script.
	lockScript = newScript(luaRevision + luaToken + `
if redis.replicate_commands then redis.replicate_commands() end
local last = tonumber(redis.call('GET', KEYS[2]) or 0) or 0
local owner = string.char(#ARGV[2]) .. ARGV[2]
local at, lock = rev(KEYS[1])
if at then
  if not lock or redis.call('GETRANGE', KEYS[1], 12, 11 + #owner) ~= owner then return 0 end
  last = math.max(last, token(at))
end
local now = redis.call('TIME')
local new = math.max(last + 1, tonumber(now[1]) * 1000000 + tonumber(now[2]))
local bytes, left = '', new
for _ = 1, 7 do
  bytes = string.char(left % 256) .. bytes
  left = math.floor(left / 256)
end
redis.call('SET', KEYS[1], '\154VK\002\128' .. bytes .. owner .. ARGV[1], 'PX', ARGV[3])
return new
`)

	// rememberScript notes the token of a hold in KEYS[2], for as many
	// milliseconds.
	rememberScript = newScript(`
local last = tonumber(redis.call('GET', KEYS[2]) or 0) or 0
if tonumber(ARGV[1]) > last then redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2]) end
return 0
`)
)

// run runs a script on one key, or on keys of the same slot, and returns the
// number that it answers.
func (d *driver) run(ctx context.Context, s *script, keys []string, bulk bool, args ...any) (int64, error) {
	reply, err := d.send(ctx, keys[0], bulk, s.call("EVALSHA", s.hash, keys, args))
	if isCode(err, "NOSCRIPT") { // it has not run; EVAL makes the server keep it
		reply, err = d.send(ctx, keys[0], bulk, s.call("EVAL", s.source, keys, args))
	}
	if err != nil {
		return 0, writeError(err)
	}
	n, _ := reply.(int64)
	return n, nil
}

func (s *script) call(name, what string, keys []string, args []any) *call {
	all := append(make([]any, 0, 2+len(keys)+len(args)), what, len(keys))
	for _, k := range keys {
		all = append(all, k)
	}
	return newCall(false, name, append(all, args...)...)
}
