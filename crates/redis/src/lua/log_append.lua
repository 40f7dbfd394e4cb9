#!lua
-- Appends a piece of whole lines to the log of a job. See logs.rs for the layout.
--
-- KEYS[1]  the prefix of the shard's keys
-- ARGV     1 id, 2 now (ms), 3 bytes of the beginning that are kept, 4 bytes of a segment, 5 bytes of the end that are kept,
--          then the piece in parts, each not larger than a segment
local call = redis.call
local p, id = KEYS[1], ARGV[1]
local head_bytes, segment_bytes, tail_bytes = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local log = p .. 'log:' .. id
local known = call('HMGET', log, 'end', 'last', 'first')
local ends, last, first = tonumber(known[1] or 0), tonumber(known[2] or 0), tonumber(known[3] or 1)
local function int(number)
  return string.format('%.0f', number)
end
local function begin_of(segment)
  return segment == 0 and 0 or tonumber(call('HGET', log, segment))
end
local begins = begin_of(last)
local grown = 0
for part = 6, #ARGV do
  local bytes = ARGV[part]
  local room = last == 0 and head_bytes or segment_bytes
  if ends > begins and ends - begins + #bytes > room then
    last = last + 1
    begins = ends
    call('HSET', log, last, int(begins))
  end
  call('APPEND', p .. 'log_text:' .. last .. ':' .. id, bytes)
  ends = ends + #bytes
  grown = grown + #bytes
  while first < last and ends - begin_of(first) > tail_bytes do
    local oldest = p .. 'log_text:' .. first .. ':' .. id
    grown = grown - call('STRLEN', oldest)
    call('DEL', oldest)
    call('HDEL', log, first)
    first = first + 1
  end
end
call('HSET', log, 'end', int(ends), 'last', last, 'first', first)
if not known[1] then
  call('ZADD', p .. 'logs_by_id', 0, id)
end
call('ZADD', p .. 'logs', ARGV[2], id)
call('INCRBY', p .. 'logs_bytes', grown)
return ends
