#!lua flags=allow-oom
-- A node's pulse on a shard: tells the time, counts, and looks what is due. Atomic because the time of the store must not
-- go back between two nodes that ask for it.
--
-- KEYS[1]  the prefix of the shard's keys
-- ARGV     1 an id for the epoch of the shard if it has none, 2 the number of shards for a store that is new ('': this
--          shard does not keep the time), 3 the time (microseconds) that the store must not be behind ('': none),
--          4 '1' to look what is due, 5 the node, 6 for how long (microseconds) the time must have stood still to count as
--          an outage, 7 for how long the end of one is told, 8 the layout (`keys.rs`) for a store that is new
--
-- Answers with the time of the store and what TIME says, in microseconds, the id of the epoch, the number of steps
-- and pulses of this node, the number of shards, when the store was back from an outage and after how
-- long ('': none lately), the layout of what is stored; then the least time of due, running, events and policies ('': none),
-- and how many names may have work.
local call = redis.call
local p = KEYS[1]
local candidate, shards, floor, look, node = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1', ARGV[5]
local function int(number)
  return string.format('%.0f', number)
end

local time = call('TIME')
local wall = tonumber(time[1]) * 1000000 + tonumber(time[2])
local key = p .. 'epoch'
local kept = call('HMGET', key, 'id', 'last', 'ahead', 'shards', 'resumed_at', 'resumed_after', 'layout')
local id, now = kept[1], wall
if not id then
  id = candidate
  call('HSET', key, 'id', id)
end
local resumed_at, resumed_after, layout = '', '', ''
if shards ~= '' then
  local ahead, last = tonumber(kept[3] or 0), tonumber(kept[2] or 0)
  if kept[4] then
    -- Layouts are told since the one with number 1.
    shards, layout = kept[4], kept[7] or '0'
  else
    layout = ARGV[8]
    call('HSET', key, 'layout', layout)
  end
  now = wall + ahead
  local least = math.max(last, tonumber(floor) or 0)
  if now < least then
    ahead = ahead + least - now
    now = least
  end
  call('HSET', key, 'last', int(now), 'ahead', int(ahead), 'shards', shards)
  -- Each node pulses about once a second: that none did means that none could, or that there was none.
  if last > 0 and now - last > tonumber(ARGV[6]) then
    resumed_at, resumed_after = int(now), int(now - last)
    call('HSET', key, 'resumed_at', resumed_at, 'resumed_after', resumed_after)
  elseif kept[5] and now - tonumber(kept[5]) < tonumber(ARGV[7]) then
    resumed_at, resumed_after = kept[5], kept[6]
  end
end
local steps = call('INCR', p .. 'steps:' .. node)
-- A day after the last pulse of a node nobody asks for it any more.
call('EXPIRE', p .. 'steps:' .. node, 86400)

local answer = { int(now), int(wall), id, steps, shards, resumed_at, resumed_after, layout }
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
  answer[9] = least(p .. 'due') or ''
  answer[10] = running and int(running) or ''
  answer[11] = least(p .. 'outbox') or ''
  answer[12] = least(p .. 'policies_due') or ''
  answer[13] = call('SCARD', p .. 'work')
end
return answer
