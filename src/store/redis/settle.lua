-- Changes charges in the windows in which they were made. `limbs.lua` precedes it.
--
-- KEYS   1 to n: the counters, one for each charge that changes.
--        n + 1: the record of the settlement.
-- ARGV   Little-endian doubles of eight bytes. All numbers of an argument are one text:
--        1: the host's present; the largest skew between the clocks; how long a counter is kept
--           after its end (all in microseconds); the eight bytes of the generation that a new
--           counter gets; then, as text, how long the record is kept (in milliseconds).
--        1 + i: of charge i, its kind; where it was made (in microseconds); its seconds; 0 if it
--           becomes less, 1 if more, 2 if it becomes more than zero, 3 if the end of its lease
--           changes; the difference in units and millionths, or the amount whose lease changes; the
--           rate of a token bucket, or the new end of the lease and 0; then the eight bytes of the
--           generation in which the charge was made. Kinds, rates and states are those of
--           `reserve.lua`.
--
-- Returns a list: 0 if it is done, now or earlier; otherwise as `reserve.lua`.

plus, minus, odd, broken, drain, drained_after, expiry = limbs()
local now, bound, late, new_generation = struct.unpack('<dddc8', ARGV[1])
local time = redis.call('TIME')
local skew = now - (time[1] * 1e6 + time[2])
if skew > bound or skew < -bound then return {1, floor(skew / 1000)} end

local n = #ARGV - 1
local states = redis.call('MGET', unpack(KEYS))
if states[n + 1] then return {0} end

local missing = {}
for i = 1, n do
  if not states[i] then missing[#missing + 1] = KEYS[i] end
end
if missing[1] and redis.call('EXISTS', unpack(missing)) > 0 then return {2} end

local changed, ends = {}, {}

for i = 1, n do
  local kind, at, seconds, more, dh, dl, a, b, generation = struct.unpack('<ddddddddc8', ARGV[i + 1])
  local state = states[i]
  local letter = state and string.byte(state)
  local size = state and #state

  -- Applies the change to a sum. A saturated sum does not become less.
  local function replaced(h, l)
    if more > 0 then return plus(h, l, dh, dl) end
    if h == END_H and l == END_L then return h, l end
    return minus(h, l, dh, dl)
  end

  if state and string.sub(state, 2, 9) ~= generation and not (kind == 3 and more == 2) then
    -- The counter has begun anew since, so what the charge gives back is not room of it. (A unit of
    -- zero is not kept, so it begins in the present generation.)
    if size < 25 then return {2} end

  elseif not state and kind ~= 3 and (kind ~= 2 or more == 0 or (dh == 0 and dl == 0)) then
    -- The counter has been forgotten, and the charge with it.

  elseif kind == 0 then
    if letter ~= 70 or size ~= 49 then return {2} end
    local start, long, h, l, kept = struct.unpack('<ddddd', state, 10)
    if broken(start) or broken(long) or long < 1 or odd(h, l) then return {2} end
    if start == at then
      h, l = replaced(h, l)
      changed[i] = 'F' .. generation .. struct.pack('<ddddd', start, long, h, l, kept)
    end

  elseif kind == 1 then
    local slots = (size - 33) / 24
    if letter ~= 83 or slots % 1 ~= 0 or slots < 1 or slots > 65 then return {2} end
    local its, h, l = struct.unpack('<ddd', state, 10)
    if its ~= seconds or odd(h, l) then return {2} end
    local width = seconds * 15625
    local cell = floor(at / width)
    for j = slots, 1, -1 do
      local last, sh, sl = struct.unpack('<ddd', state, 10 + 24 * j)
      if broken(last) or odd(sh, sl) then return {2} end
      local its_cell = floor(last / width)
      if its_cell <= cell then
        if its_cell == cell then
          local th, tl = replaced(sh, sl)
          local new = string.sub(state, 34, 9 + 24 * j) .. struct.pack('<ddd', last, th, tl)
            .. string.sub(state, 34 + 24 * j)
          if h == END_H and l == END_L then
            -- A saturated sum is added up anew.
            h, l = 0, 0
            for k = 1, slots do
              local _, uh, ul = struct.unpack('<ddd', new, 24 * k - 23)
              h, l = plus(h, l, uh, ul)
            end
          else
            h, l = minus(h, l, sh, sl)
            h, l = plus(h, l, th, tl)
          end
          changed[i] = 'S' .. generation .. struct.pack('<ddd', its, h, l) .. new
        end
        break
      end
    end

  elseif kind == 2 then
    -- A forgotten bucket was full: the excess is missing from now on.
    local its, seen, h, l, r = seconds, now, 0, 0, 0
    if state then
      if letter ~= 66 or size ~= 49 then return {2} end
      its, seen, h, l, r = struct.unpack('<ddddd', state, 10)
    end
    local w = seconds * 1e6
    if its ~= seconds or broken(seen) or odd(h, l) or broken(r) or r < 0 or r >= w then return {2} end
    local present = seen
    if now > seen then
      present = now
      h, l, r = drain(h, l, r, w, a, b, now - seen)
    end
    if more > 0 then
      h, l = plus(h, l, dh, dl)
      -- A saturated level has no parts.
      if h == END_H and l == END_L then r = 0 end
    elseif h < dh or (h == dh and l < dl) then
      h, l, r = 0, 0, 0
    else
      h, l = minus(h, l, dh, dl)
    end
    changed[i] = 'B' .. (state and generation or new_generation) .. struct.pack('<ddddd', its, present, h, l, r)
    ends[i] = present + drained_after(h, l, r, w, a, b) + BUCKET_KEPT

  else
    local units, h, l, all = 0, 0, 0, ''
    local own = new_generation
    if state then
      units = (size - 25) / 24
      if letter ~= 73 or units % 1 ~= 0 or units < 0 then return {2} end
      own, h, l = struct.unpack('<c8dd', state, 2)
      if odd(h, l) then return {2} end
      all = string.sub(state, 26)
    end

    -- Returns the place of the unit whose lease ends at an instant, and the unit if there is one.
    local function find(instant)
      local low, high = 1, #all / 24
      while low <= high do
        local middle = floor((low + high) / 2)
        local ends_at, eh, el = struct.unpack('<ddd', all, 24 * middle - 23)
        if broken(ends_at) or odd(eh, el) then return nil end
        if ends_at == instant then return middle, true, eh, el end
        if ends_at < instant then low = middle + 1 else high = middle - 1 end
      end
      return low, false, 0, 0
    end

    -- Puts a unit of this sum in place of the one at a place, or before it.
    local function put(place, instant, replaces, uh, ul)
      local unit = (uh > 0 or ul > 0) and struct.pack('<ddd', instant, uh, ul) or ''
      all = string.sub(all, 1, 24 * place - 24) .. unit .. string.sub(all, 24 * (replaces and place + 1 or place) - 23)
    end

    local place, found, uh, ul = find(at)
    if not place then return {2} end
    if more == 3 then
      -- Only a lease that has not ended.
      if found and at > now and a > at then
        local mh, ml = dh, dl
        if uh < mh or (uh == mh and ul < ml) then mh, ml = uh, ul end
        put(place, at, true, minus(uh, ul, mh, ml))
        local to, meets, eh, el = find(a)
        if not to then return {2} end
        put(to, a, meets, plus(eh, el, mh, ml))
        changed[i] = 'I' .. own .. struct.pack('<dd', h, l) .. all
        ends[i] = struct.unpack('<d', all, #all - 23)
      end
    -- A unit of zero is not kept, so it begins now. The lease of any other missing unit has ended.
    elseif found or (more == 2 and at > now) then
      local whole = h < END_H or l < END_L
      local th, tl = dh, dl
      if found then
        th, tl = replaced(uh, ul)
        if whole then h, l = minus(h, l, uh, ul) end
      end
      put(place, at, found, th, tl)
      if whole then
        h, l = plus(h, l, th, tl)
      else
        -- A saturated sum is added up anew.
        h, l = 0, 0
        for k = 1, #all / 24 do
          local _, eh, el = struct.unpack('<ddd', all, 24 * k - 23)
          h, l = plus(h, l, eh, el)
        end
      end
      changed[i] = 'I' .. own .. struct.pack('<dd', h, l) .. all
      if not state then ends[i] = struct.unpack('<d', all, #all - 23) end
    end
  end
end

-- Written first: a full server refuses here, before anything is changed.
if not redis.call('SET', KEYS[n + 1], 's', 'NX', 'PX', string.sub(ARGV[1], 33)) then return {2} end
for i = 1, n do
  if ends[i] then
    redis.call('SET', KEYS[i], changed[i], 'PXAT', expiry(ends[i], late))
  elseif changed[i] then
    redis.call('SET', KEYS[i], changed[i], 'KEEPTTL')
  end
end
return {0}
