#!lua flags=allow-oom
-- A node's pulse on a shard: tells the time, counts, and looks what is due. Atomic because the time of the store must not
-- go back between two nodes that ask for it.
--
-- KEYS[1]  the prefix of the shard's keys
-- ARGV     1 an id for the epoch of the shard if it has none, 2 the number of shards for a store that is new ('': this
--          shard does not keep the time), 3 the time (microseconds) that the store must not be behind ('': none),
--          4 '1' to look what is due
--
-- Answers with the time of the store and what TIME says, in microseconds, the id of the epoch, its count, the number of
-- shards; then the least time of due, running, events and policies ('': none), and how many names may have work.
local call = redis.call
local p = KEYS[1]
local candidate, shards, floor, look = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'
local function int(number)
  return string.format('%.0f', number)
end

local time = call('TIME')
local wall = tonumber(time[1]) * 1000000 + tonumber(time[2])
local key = p .. 'epoch'
local kept = call('HMGET', key, 'id', 'last', 'ahead', 'shards')
local id, now = kept[1], wall
if not id then
  id = candidate
  call('HSET', key, 'id', id)
end
if shards ~= '' then
  local ahead, last = tonumber(kept[3] or 0), tonumber(kept[2] or 0)
  shards = kept[4] or shards
  now = wall + ahead
  local least = math.max(last, tonumber(floor) or 0)
  if now < least then
    ahead = ahead + least - now
    now = least
  end
  call('HSET', key, 'last', int(now), 'ahead', int(ahead), 'shards', shards)
end
local count = call('HINCRBY', key, 'count', 1)

local answer = { int(now), int(wall), id, count, shards }
if look then
  local function least(key)
    return call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  end
  local running
  for _, name in ipairs(call('SMEMBERS', p .. 'busy')) do
    -- A name without runs is one for reap to tidy away, now.
    local score = tonumber(least(p .. 'running:' .. name) or 0)
    if not running or score < running then
      running = score
    end
  end
  answer[6] = least(p .. 'due') or ''
  answer[7] = running and int(running) or ''
  answer[8] = least(p .. 'outbox') or ''
  answer[9] = least(p .. 'policies_due') or ''
  answer[10] = call('SCARD', p .. 'work')
end
return answer
