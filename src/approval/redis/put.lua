-- Replaces a group of approvals, if it is still the one that was read, and updates the indexes.
--
-- KEYS   1: the group: a nonce of 32 characters, which each writer draws anew, and its text.
--        2: the live approvals by their ends: a sorted set; a member is the 32 bytes of a digest
--           and the 8 bytes of a number.
--        3: the pending requests by when they were made; members as in 2.
--        4: the last number that was assigned.
--        5: the pending requests of the same asker by their ends; members as in 2.
-- ARGV   1: the nonce that was read; empty if there was no group.
--        2: the new group with its nonce; empty to delete it.
--        3: the new nonce.
--        4: the host's present; 5: the maximum difference of the clocks (microseconds).
--        6: when the group expires (milliseconds).
--        7: the maximum number of live approvals; 8: of pending requests of one asker.
--        9: '' if the group has nothing new, 's' for a signed approval that was used, else the
--           number of a new request.
--        10 and following, three for each entry that changes: the member; its end, empty if it is
--           removed; when it was requested, empty if it is not pending (microseconds).
--
-- Returns a list: 0 if it is done, now or earlier; 1 and the milliseconds that the host's clock is
--        ahead; 2 if a key holds foreign data; 3 if the group has changed; 4 if there are too many
--        live approvals; 5 if there are too many pending requests; 6 and a number, if that last
--        number is not below the new one.

local call = redis.call
local time = call('TIME')
local now, bound = tonumber(ARGV[4]), tonumber(ARGV[5])
local skew = now - (time[1] * 1e6 + time[2])
if skew > bound or skew < -bound then return {1, math.floor(skew / 1000)} end

local kept = call('GET', KEYS[1])
local nonce = kept and string.sub(kept, 1, 32) or ''
-- The reply was lost, and this is the same request again.
if nonce == ARGV[3] then return {0} end
if nonce ~= ARGV[1] then return {3} end
-- A key with data of another type fails here, before anything is written.
call('ZCARD', KEYS[2])
call('ZCARD', KEYS[3])
call('ZCARD', KEYS[5])
local last = call('GET', KEYS[4])

local new = ARGV[9]
if new ~= '' then
  -- More than one, so that a backlog of expired approvals shrinks.
  for _, member in ipairs(call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[4], 'LIMIT', 0, 64)) do
    call('ZREM', KEYS[2], member)
    call('ZREM', KEYS[3], member)
  end
  if call('ZCOUNT', KEYS[2], '(' .. ARGV[4], '+inf') >= tonumber(ARGV[7]) then return {4} end
  if new ~= 's' then
    call('ZREMRANGEBYSCORE', KEYS[5], '-inf', ARGV[4])
    if call('ZCARD', KEYS[5]) >= tonumber(ARGV[8]) then return {5} end
    if last then
      local given = tonumber(last)
      if not given then return {2} end
      if given >= tonumber(new) then return {6, given} end
    end
  end
end

-- Extends the life of a key to at least `till`.
local function keep(key, till)
  if call('PTTL', key) < 0 then call('PEXPIREAT', key, till) else call('PEXPIREAT', key, till, 'GT') end
end

-- The first write that needs memory: a server that has none fails here.
if ARGV[2] == '' then call('DEL', KEYS[1]) else call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[6]) end
local lives, waits
for i = 10, #ARGV, 3 do
  local member, ends, since = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if ends == '' then
    call('ZREM', KEYS[2], member)
  else
    call('ZADD', KEYS[2], ends, member)
    lives = true
  end
  if since == '' then
    call('ZREM', KEYS[3], member)
    call('ZREM', KEYS[5], member)
  else
    call('ZADD', KEYS[3], since, member)
    call('ZADD', KEYS[5], ends, member)
    waits = true
  end
end
if lives then keep(KEYS[2], ARGV[6]) end
if waits then
  keep(KEYS[3], ARGV[6])
  keep(KEYS[5], ARGV[6])
end
-- A day longer, so that no number is assigned twice even if the clock was ahead.
if new ~= '' and new ~= 's' then
  call('SET', KEYS[4], new)
  call('PEXPIREAT', KEYS[4], string.format('%d', tonumber(ARGV[6]) + 86400000))
end
return {0}
