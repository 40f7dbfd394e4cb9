-- Applies a change that was decided elsewhere, if what it was decided from still stands: all of it or nothing.
--
-- KEYS[1]  the prefix of the shard's keys; all keys in ARGV begin with it
-- ARGV[1]  the node whose step it is (`epoch.rs`)
-- ARGV[2]  how many checks follow, ARGV[3] how many records
-- then     the checks, each an operator with its arguments:
--            h key seen          the header of this record begins with this
--            f key field text    this field of the hash is this text ('': there is none)
--            g key text          the string is this text ('': there is none)
--            x key               there is no such key
--            n id                there is neither a job nor a policy of this id
--            z key number        the sorted set has this many members
--            c key number        the set has this many members
-- then     the records that are written, each with the check that belongs to it:
--            u key seen header         its header began with `seen` and is this now
--            r key seen header rest    the same, and its rest is this now
--            d key seen                its header began with `seen` and it is removed
--            n key header body         it is new: there is neither a job nor a policy of its id
--            m key header body rest    the same, with a rest
-- then     the commands, each as its number of words and the words
--
-- Answers with the numbers of the checks that failed, from 1, those of records after the others; or, if all was written,
-- with the number of steps of this node, this one included: if it was told as many before, what was done since is lost.
local call = redis.call
local sub = string.sub
local args = ARGV
local p = KEYS[1]
local checks, records = tonumber(args[2]), tonumber(args[3])
local at = 4
local failed = {}

local function begins(key, seen)
  local header = call('HGET', key, 'h')
  return header and sub(header, 1, #seen) == seen
end

local has_policies
-- Whether an id is free: the key of a job is told, that of a policy is asked for only where there are any, as it would cost
-- each new job as much as looking for the job.
local function is_new(key)
  if has_policies == nil then
    has_policies = call('EXISTS', p .. 'policies') == 1
  end
  return call('EXISTS', key) == 0 and (not has_policies or call('EXISTS', p .. 'policy:' .. sub(key, #p + 5)) == 0)
end

for number = 1, checks do
  local op, key = args[at], args[at + 1]
  local stands
  if op == 'h' then
    stands = begins(key, args[at + 2])
    at = at + 3
  elseif op == 'x' then
    stands = call('EXISTS', key) == 0
    at = at + 2
  elseif op == 'n' then
    stands = is_new(p .. 'job:' .. key)
    at = at + 2
  elseif op == 'f' then
    stands = (call('HGET', key, args[at + 2]) or '') == args[at + 3]
    at = at + 4
  elseif op == 'g' then
    stands = (call('GET', key) or '') == args[at + 2]
    at = at + 3
  elseif op == 'z' then
    stands = call('ZCARD', key) == tonumber(args[at + 2])
    at = at + 3
  elseif op == 'c' then
    stands = call('SCARD', key) == tonumber(args[at + 2])
    at = at + 3
  else
    return redis.error_reply('ERR unknown check ' .. tostring(op))
  end
  if not stands then
    failed[#failed + 1] = number
  end
end

local width = { u = 4, r = 5, d = 3, n = 4, m = 5 }
local first = at
for number = 1, records do
  local op, key = args[at], args[at + 1]
  local stands
  if op == 'n' or op == 'm' then
    stands = is_new(key)
  elseif width[op] then
    stands = begins(key, args[at + 2])
  else
    return redis.error_reply('ERR unknown record ' .. tostring(op))
  end
  if not stands then
    failed[#failed + 1] = checks + number
  end
  at = at + width[op]
end
if #failed > 0 then
  return failed
end

at = first
for _ = 1, records do
  local op, key = args[at], args[at + 1]
  if op == 'u' then
    call('HSET', key, 'h', args[at + 3])
  elseif op == 'n' then
    call('HSET', key, 'h', args[at + 2], 'b', args[at + 3])
  elseif op == 'r' then
    call('HSET', key, 'h', args[at + 3], 'r', args[at + 4])
  elseif op == 'm' then
    call('HSET', key, 'h', args[at + 2], 'b', args[at + 3], 'r', args[at + 4])
  else
    call('DEL', key)
  end
  at = at + width[op]
end
local last = #args
while at <= last do
  local words = tonumber(args[at])
  call(unpack(args, at + 1, at + words))
  at = at + words + 1
end
return call('INCR', p .. 'steps:' .. args[1])
