#!lua flags=allow-oom
-- Takes Pending jobs for a pool. The rule is `claim` in the rule book (core, lifecycle.rs); a test replays this against it.
-- The format of headers is told in header.rs, that of events in entry.rs.
--
-- KEYS[1]  the prefix of the shard's keys
-- ARGV     1 now, 2 until, 3 grace (ms), 4 slots, 5 the name one job of which that crashed may be among them ('*': any), 6 nonce,
--          7 pool, 8 the hour, 9 the minute in it, 10 how many names follow; for each name:
--          name, its part of the slots in the first round, the limit of its running jobs (-1: none), its options as the
--          caller knows them, '1' if they let it run
--
-- Answers with {jobs, broken}: id, header, body, rest of each job taken, and the ids of records that cannot be read; or
-- with the options of the names, if the caller does not know them as they are.
local call = redis.call
local p = KEYS[1]
local now, until_, grace, slots = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local suspects = ARGV[5]
local nonce, pool = ARGV[6], ARGV[7]
local hour, minute = ARGV[8], ARGV[9]
local count = tonumber(ARGV[10])

local names = {}
for i = 1, count do
  names[i] = ARGV[5 * i + 6]
end
local options = call('HMGET', p .. 'names', unpack(names))
for i = 1, count do
  if (options[i] or '') ~= ARGV[5 * i + 9] then
    local known = {}
    for j = 1, count do
      known[j] = options[j] or ''
    end
    return { 'options', known }
  end
end

local jobs, broken = {}, {}
local taken = 0
local until_number = tonumber(until_)
-- Whole numbers as text: tostring would write large ones with an exponent.
local function int(number)
  return string.format('%.0f', number)
end

-- The number after one, both as text. Few numbers come again and again.
local following = {}
local function after_one(text)
  local known = following[text]
  if not known then
    known = int(tonumber(text) + 1)
    following[text] = known
  end
  return known
end

-- The mark of a lease and until when it lasts.
local mark = ' ' .. nonce .. ' ' .. until_ .. ' '

-- How a run with a timeout ends, by the timeout: the end of its first part with its lease, and when it has to be looked at.
local ends = {}
local function ends_of(timeout)
  local known = ends[timeout]
  if not known then
    local abort_at, reap_at = '-', until_
    if timeout ~= '0' then
      local at = now + tonumber(timeout) + grace
      abort_at = int(at)
      if at < until_number then
        reap_at = abort_at
      end
    end
    local lease = ' -|' .. pool .. ' ' .. abort_at .. ' ' .. ARGV[1] .. ' ' .. ARGV[1] .. '|'
    known = { lease = lease, reap_at = reap_at }
    ends[timeout] = known
  end
  return known
end

-- Makes one job Running; answers whether it could.
local function run(id, batch)
  local key = p .. 'job:' .. id
  local record = call('HMGET', key, 'h', 'b', 'r')
  local header = record[1]
  local version, attempt, seq, flags, timeout, ready_at, digest, rest
  if header then
    version, attempt, seq, flags, timeout, ready_at, digest, rest =
      string.match(header, '^1 (%d+) %-?%d+ %- (%d+) (%d+) (%S+) (%d+) (%-?%d+) (%S+)||(.*)$')
  end
  if not version or not record[2] then
    broken[#broken + 1] = id
    return false
  end
  attempt = after_one(attempt)
  if string.sub(flags, 1, 1) == 'h' then
    seq = after_one(seq)
    call('HSET', p .. 'outbox:' .. id, seq, '0 ' .. ARGV[1] .. ' 0 - 2 ' .. attempt .. ' ' .. ARGV[1])
    call('HINCRBY', p .. 'outbox:' .. id, 'v', 1)
    call('ZADD', p .. 'outbox', 'NX', ARGV[1], id)
    call('ZADD', p .. 'outbox_since', 'LT', ARGV[1], id)
    flags = 'h'
  else
    flags = '-'
  end
  if digest ~= '-' then
    call('DEL', p .. 'unique:' .. digest)
  end
  local lasts = ends_of(timeout)
  local after = '2 ' .. after_one(version) .. mark .. attempt .. ' ' .. seq .. ' ' .. flags .. ' '
    .. timeout .. ' ' .. ready_at .. lasts.lease .. rest
  call('HSET', key, 'h', after)
  local n = #jobs
  jobs[n + 1], jobs[n + 2], jobs[n + 3], jobs[n + 4] = id, after, record[2], record[3] or ''
  local m = #batch.running
  batch.running[m + 1], batch.running[m + 2] = lasts.reap_at, id
  local waited = now - tonumber(ready_at)
  if waited > 0 then
    batch.waited = batch.waited + waited
  end
  return true
end

-- Calls a command with many words, a thousand at a time.
local function in_parts(command, key, words)
  for from = 1, #words, 1000 do
    call(command, key, unpack(words, from, math.min(from + 999, #words)))
  end
end

local room = {}
local waits = {}
for round = 1, 2 do
  for i = 1, count do
    local left = slots - taken
    if left <= 0 then
      break
    end
    local name, limit = names[i], tonumber(ARGV[5 * i + 8])
    if waits[i] == nil then
      waits[i] = ARGV[5 * i + 10] == '1' and call('SISMEMBER', p .. 'work', name) == 1
    end
    if waits[i] and room[i] == nil then
      if limit < 0 then
        room[i] = slots
      else
        room[i] = limit - call('ZCARD', p .. 'running:' .. name)
      end
    end
    if waits[i] and room[i] > 0 then
      local wanted = math.min(left, room[i])
      if round == 1 then
        wanted = math.min(wanted, tonumber(ARGV[5 * i + 7]))
      end
      local ready, crashed = p .. 'ready:' .. name, p .. 'suspects:' .. name
      local may_crash = suspects == '*' or suspects == name
      local first = may_crash and call('ZRANGE', crashed, 0, 0, 'WITHSCORES') or {}
      local picked, from_ready, from_crashed = {}, {}, {}
      if first[1] then
        local found = call('ZRANGE', ready, 0, wanted - 1, 'WITHSCORES')
        local placed = false
        for at = 1, #found, 2 do
          local score = tonumber(found[at + 1])
          if not placed and (tonumber(first[2]) < score or (tonumber(first[2]) == score and first[1] < found[at])) then
            placed = true
            picked[#picked + 1] = first[1]
          end
          if #picked < wanted then
            picked[#picked + 1] = found[at]
          end
        end
        if not placed and #picked < wanted then
          placed = true
          picked[#picked + 1] = first[1]
        end
        if placed then
          suspects = ''
        else
          first = {}
        end
      else
        picked = call('ZRANGE', ready, 0, wanted - 1)
      end
      if #picked > 0 then
        local batch = { running = {}, waited = 0 }
        for at = 1, #picked do
          local id = picked[at]
          if id == first[1] then
            from_crashed[1] = id
          else
            from_ready[#from_ready + 1] = id
          end
          if run(id, batch) then
            taken = taken + 1
            room[i] = room[i] - 1
          end
        end
        in_parts('ZREM', ready, from_ready)
        in_parts('ZREM', crashed, from_crashed)
        in_parts('ZADD', p .. 'running:' .. name, batch.running)
        if #batch.running > 0 then
          call('ZINCRBY', p .. 'held:' .. pool, #batch.running / 2, nonce)
          call('SADD', p .. 'busy', name)
          if batch.waited > 0 then
            call('HINCRBY', p .. 'minutes:' .. hour .. ':' .. name, minute .. 'w', int(batch.waited))
            call('ZADD', p .. 'minutes', 'LT', int(60 * tonumber(hour) + tonumber(minute)), hour .. ':' .. name)
          end
        end
      end
      if #picked < wanted and call('EXISTS', ready, crashed) == 0 then
        waits[i] = false
        call('SREM', p .. 'work', name)
      end
    end
  end
end
if #broken > 0 then
  in_parts('SADD', p .. 'broken', broken)
end
return { 'jobs', jobs, broken }
