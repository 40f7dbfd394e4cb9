#!lua flags=no-writes
-- What a claim over several shards has to know of the names of one, before it is planned over all of them.
--
-- KEYS[1]  the prefix of the shard's keys
-- ARGV     1 slots of the claim, then names
--
-- Answers with five values for each of the names that may have work: its number in ARGV from 1, its waiting jobs (suspects
-- left out), its running jobs, its options as text, and how many waiting jobs come before its first suspect (-1: no such).
local call = redis.call
local p, slots = KEYS[1], tonumber(ARGV[1])
local work = {}
for _, name in ipairs(call('SMEMBERS', p .. 'work')) do
  work[name] = true
end
local found = {}
for at = 2, #ARGV do
  local name = ARGV[at]
  if work[name] then
    local ready = p .. 'ready:' .. name
    local first = call('ZRANGE', p .. 'suspects:' .. name, 0, 0, 'WITHSCORES')
    local before = -1
    if first[1] then
      before = call('ZCOUNT', ready, '-inf', '(' .. first[2])
      for _, id in ipairs(call('ZRANGEBYSCORE', ready, first[2], first[2], 'LIMIT', 0, slots)) do
        if id < first[1] then
          before = before + 1
        end
      end
    end
    local n = #found
    found[n + 1] = at - 1
    found[n + 2] = call('ZCARD', ready)
    found[n + 3] = call('ZCARD', p .. 'running:' .. name)
    found[n + 4] = call('HGET', p .. 'names', name) or ''
    found[n + 5] = before
  end
end
return found
