-- Applies a change that was decided elsewhere, if what it was decided from still stands: all of it or nothing.
--
-- KEYS[1]  the prefix of the shard's keys; all keys in ARGV begin with it
-- ARGV[1]  the node whose step it is (`epoch.rs`)
-- ARGV[2]  how many checks follow, each an operator with its arguments:
--            h key text          the header of this record is this text ('': there is no such record)
--            f key field text    this field of the hash is this text ('': there is none)
--            g key text          the string is this text ('': there is none)
--            x key               there is no such key
--            n id                there is neither a job nor a policy of this id
--            z key number        the sorted set has this many members
--            c key number        the set has this many members
-- then     the commands, each as its number of words and the words
--
-- Answers with the numbers of the checks that failed, from 1; or, if the commands were carried out, with the number of
-- steps of this node, this one included: if it was told as many before, what was done since is lost.
local call = redis.call
local args = ARGV
local checks = tonumber(args[2])
local at = 3
local failed = {}
local has_policies
for number = 1, checks do
  local op, key = args[at], args[at + 1]
  local stands
  if op == 'h' then
    stands = (call('HGET', key, 'h') or '') == args[at + 2]
    at = at + 3
  elseif op == 'x' then
    stands = call('EXISTS', key) == 0
    at = at + 2
  elseif op == 'n' then
    -- Most stores have no policies, and looking for one costs each new job as much as looking for the job.
    if has_policies == nil then
      has_policies = call('EXISTS', KEYS[1] .. 'policies') == 1
    end
    stands = call('EXISTS', KEYS[1] .. 'job:' .. key) == 0
      and (not has_policies or call('EXISTS', KEYS[1] .. 'policy:' .. key) == 0)
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
if #failed > 0 then
  return failed
end
local last = #args
while at <= last do
  local words = tonumber(args[at])
  call(unpack(args, at + 1, at + words))
  at = at + words + 1
end
return call('INCR', KEYS[1] .. 'steps:' .. args[1])
