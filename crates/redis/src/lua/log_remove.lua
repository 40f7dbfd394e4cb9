#!lua flags=allow-oom
-- Removes the logs of jobs. See logs.rs for the layout.
--
-- KEYS[1]  the prefix of the shard's keys
-- ARGV     the ids
--
-- Answers with how many there were and how many bytes they had.
local call = redis.call
local p = KEYS[1]
local logs, bytes = 0, 0
for _, id in ipairs(ARGV) do
  local log = p .. 'log:' .. id
  local known = call('HMGET', log, 'last', 'first')
  if known[1] then
    logs = logs + 1
    local segments = { 0 }
    for segment = tonumber(known[2]), tonumber(known[1]) do
      segments[#segments + 1] = segment
    end
    for _, segment in ipairs(segments) do
      local text = p .. 'log_text:' .. segment .. ':' .. id
      bytes = bytes + call('STRLEN', text)
      call('DEL', text)
    end
    call('DEL', log)
    call('ZREM', p .. 'logs', id)
    call('ZREM', p .. 'logs_by_id', id)
  end
end
call('DECRBY', p .. 'logs_bytes', bytes)
return { logs, bytes }
