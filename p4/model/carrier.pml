/* One job that leaves the switch when it dies, goes on over the ranks, and returns. See README.md. */
#ifndef RANKS
#define RANKS 3
#endif
#ifndef CHUNKS
#define CHUNKS 4
#endif
#ifndef GRANTS
#define GRANTS 2     /* leases, the first one included */
#endif
#ifndef DEATHS
#define DEATHS 1     /* of the switch: its slots and tables are empty when it is back */
#endif
#ifndef COMPLAINTS
#define COMPLAINTS 1 /* of ranks without a reason that the others see: a broken link, impatience */
#endif
#define SLOTS LEASE_SLOTS
#define NONE 15

#include "switch.pml"

/* What can do nothing any more is forgotten (as in slots.pml). */
#if defined(EPOCH_TWICE) || defined(REPLY_EPOCH_UNCHECKED) || defined(REMEMBER)
#define KEEP_ALL
#endif
#define ALL_CHUNKS ((1 << CHUNKS) - 1)

/* A grant of a lease, and what was ever sent under it (as in slots.pml). */
typedef Grant {
  byte epoch;
  byte first[RANKS];  /* the payload that position 0 carries; equal on all ranks */
  byte next[RANKS];   /* contributions to positions below were sent */
  byte good[RANKS];   /* RESULTs to each rank, a bit for each position: with the right sum */
  byte bad[RANKS]     /* with another one */
};
Grant net[GRANTS];

mtype = { SWITCH, EXCHANGE, HAND_OVER, OVER_RANKS };
typedef Engine {
  mtype mode;
  byte grant;   /* the lease in use; NONE over the ranks */
  byte base;    /* oldest position without a result */
  byte done;    /* positions whose results have come */
  byte lo, end; /* HAND_OVER: the positions that all ranks contribute again */
  byte at;      /* OVER_RANKS: the next payload */
  byte last;    /* the last lease that was used */
  byte hand;    /* 1 + the lease in hand; 0 for none */
  byte has;     /* payloads whose sum was applied */
  bool inside;  /* a collective over the ranks */
  bit turn      /* the place of its next collective over the ranks */
};
Engine engine[RANKS];

/* Collectives over the ranks: one after the other, so that two places are enough. */
typedef Collective {
  byte entered;
  byte left;
  byte kind[RANKS];
  byte one[RANKS];    /* EXCHANGE: base; else the tag of the contribution */
  byte two[RANKS];    /* EXCHANGE: next */
  byte shown[RANKS]   /* OVER_RANKS: the lease in hand */
};
Collective among[2];

byte attempt;          /* the newest lease */
bool joined = true;    /* all ranks have joined it */
byte entry;            /* the grant that the membership table knows, NONE for none */
bool up = true;        /* the switch */
byte leave;            /* 1 + the newest lease that rank 0 has told all ranks to leave; 0 for none */
byte deaths = DEATHS;
byte complaints = COMPLAINTS;
bool quiet;            /* from now on no fault happens: the network delivers only what is sent again */

#define TAG(payload) (1 + (payload))
#define WANTED (joined -> attempt : NONE)
#define KNOWN(g) (up && entry != NONE && net[entry].epoch == net[g].epoch)
#define OVER (engine[0].has == ALL_CHUNKS && engine[1].has == ALL_CHUNKS && \
              engine[RANKS - 1].has == ALL_CHUNKS)

/* -- the network, from the switch */

byte n_g, n_p, n_r;
byte asking;  /* the grant of the contribution that the switch has at hand */

#ifdef KEEP_ALL
#define APPLIED false
#else
#define APPLIED \
  (engine[n_r].grant != asking || n_p < engine[n_r].base || ((engine[n_r].done >> n_p) & 1))
#endif

inline RESULT_TO(to, eno, cno) {
  n_p = POSITION_OF(cno);
  n_r = 0;
  do
  :: n_r < RANKS ->
       if
       :: (((to) >> n_r) & 1) == 0 || APPLIED
       :: else ->
            if
            :: summed == TAG(net[asking].first[n_r] + n_p) && net[asking].epoch == (eno) ->
                 net[asking].good[n_r] = net[asking].good[n_r] | (1 << n_p)
            :: else ->
                 net[asking].bad[n_r] = net[asking].bad[n_r] | (1 << n_p)
            fi
       fi;
       n_r++
  :: else -> break
  od;
  n_p = 0; n_r = 0; summed = 0
}

/* Forgets what is on its way under grants that the switch will never know again, for ranks that have
 * left them. */
inline sweep() {
#ifndef KEEP_ALL
  n_g = 0;
  do
  :: n_g < attempt ->
       n_r = 0;
       do
       :: n_r < RANKS ->
            if
            :: entry != n_g && engine[n_r].grant != n_g ->
                 net[n_g].next[n_r] = 0; net[n_g].good[n_r] = 0; net[n_g].bad[n_r] = 0;
                 net[n_g].first[n_r] = 0
            :: else
            fi;
            n_r++
       :: else -> break
       od;
       n_g++
  :: else -> break
  od;
#endif
  n_g = 0; n_r = 0
}

/* -- a rank on the switch */

#define ME engine[r]
#ifdef NO_STOP
#define ON_SWITCH (ME.mode != OVER_RANKS)
#else
#define ON_SWITCH (ME.mode == SWITCH)
#endif
#define FIRST net[ME.grant].first[r]
#define OPENED net[ME.grant].next[r]
#define HAS_RESULT(p) ((ME.done >> (p)) & 1)
#define CAN_OPEN (ON_SWITCH && OPENED < ME.base + WINDOW && FIRST + OPENED < CHUNKS)
#define WAITS_FOR(p) (ON_SWITCH && (p) >= ME.base && (p) < OPENED && !HAS_RESULT(p))

#define SLOT(p) SLOT_OF(0, p)
#define ARRIVES(g, p) \
  ((p) < net[g].next[r] && KNOWN(g) && \
   (!quiet -> EFFECTIVE(SLOT(p), r, net[g].epoch, CHUNK_OF(p)) \
           : (ME.grant == g && WAITS_FOR(p) && \
              USEFUL(SLOT(p), r, net[g].epoch, CHUNK_OF(p)))))

#define ARRIVAL(g, p) \
  :: d_step { ARRIVES(g, p) -> \
       printf("rank %d: contribution %d of epoch %d arrives at the switch\n", r, p, net[g].epoch); \
       asking = g; \
       contribute(SLOT(p), r, net[g].epoch, CHUNK_OF(p), TAG(net[g].first[r] + (p))); \
       asking = 0 }

#ifdef REPLY_EPOCH_UNCHECKED
#define MINE(g) true
#else
#define MINE(g) (net[g].epoch == net[ME.grant].epoch)
#endif

bool sum_is_right = true, applied_once = true, chunk_kept = true, same_collective = true;

/* The sum of a payload becomes the tensor's. */
inline apply(payload) {
  applied_once = !((ME.has >> (payload)) & 1);
  assert(applied_once);
  ME.has = ME.has | (1 << (payload))
}

inline apply_result(p) {
  apply(FIRST + p);
  ME.done = ME.done | (1 << p);
#ifndef KEEP_ALL
  net[ME.grant].good[r] = net[ME.grant].good[r] & ~(1 << p);
  net[ME.grant].bad[r] = net[ME.grant].bad[r] & ~(1 << p);
#endif
  do
  :: HAS_RESULT(ME.base) -> ME.base = ME.base + 1
  :: else -> break
  od;
  n_p = 0
}

#define HEARD(g, p) \
  :: d_step { WAITS_FOR(p) && MINE(g) && ((net[g].good[r] >> (p)) & 1) -> \
       printf("rank %d: RESULT %d of epoch %d\n", r, p, net[g].epoch); \
       sum_is_right = (net[g].first[r] == FIRST); \
       assert(sum_is_right); \
       apply_result(p) } \
  :: d_step { WAITS_FOR(p) && MINE(g) && ((net[g].bad[r] >> (p)) & 1) -> \
       printf("rank %d: RESULT %d of epoch %d with a wrong sum\n", r, p, net[g].epoch); \
       sum_is_right = false; \
       assert(sum_is_right) }

/* -- when to leave the switch */

/* Nothing is heard from the switch, whatever is sent again. */
#define SILENT (!KNOWN(ME.grant))
/* The switch waits for a rank that is past the chunk: it has forgotten what that rank had sent. */
#define WAITS_IN_VAIN \
  (SAME(SLOT(ME.base), net[ME.grant].epoch, CHUNK_OF(ME.base)) && IN_BITMAP(SLOT(ME.base), r) && \
   (PAST(0) || PAST(1) || PAST(RANKS - 1)))
#define PAST(o) \
  (!IN_BITMAP(SLOT(ME.base), o) && engine[o].grant == ME.grant && engine[o].base > ME.base)
#ifdef ONLY_SILENCE
#define COMPLAINS SILENT
#else
#define COMPLAINS (SILENT || WAITS_IN_VAIN)
#endif
#define CAN_COMPLAIN \
  (ME.mode == SWITCH && leave < ME.grant + 1 && ME.base < OPENED && \
   (COMPLAINS || (!quiet && complaints > 0)))

/* That rank 0 has told it, this rank learns at any time after. If it is not on that lease yet, since its
 * last collective over the ranks is not over, it leaves it as soon as it is. */
#ifdef LEAVE_FORGOTTEN
byte dropped[RANKS];
#define TOLD (leave >= ME.grant + 1 && dropped[r] < leave)
#else
#define TOLD (leave >= ME.grant + 1)
#endif

/* -- hand-over */

#ifdef KEPT_ONE_WINDOW
#define RING WINDOW
#else
#define RING (2 * WINDOW)
#endif
byte kept;

/* The contribution that the send buffer of position p holds: the newest with the same place. */
inline find_kept(p) {
  kept = p;
  do
  :: kept + RING < OPENED -> kept = kept + RING
  :: kept >= OPENED && kept >= RING -> kept = kept - RING
  :: else -> break
  od;
  kept = (kept < OPENED -> TAG(FIRST + kept) : 0)
}

#define PLACE among[ME.turn]
#define CAN_ENTER(m) (ME.mode == m && !ME.inside && !((PLACE.entered >> r) & 1))

inline enter(what, first_number, second_number, lease) {
  PLACE.kind[r] = what;
  PLACE.one[r] = first_number;
  PLACE.two[r] = second_number;
  PLACE.shown[r] = lease;
  PLACE.entered = PLACE.entered | (1 << r);
  ME.inside = true
}

#define MIN(a, b) ((a) < (b) -> (a) : (b))
#define MAX(a, b) ((a) > (b) -> (a) : (b))
#define MIN_OF(f) MIN(MIN(PLACE.f[0], PLACE.f[1]), PLACE.f[RANKS - 1])
#define MAX_OF(f) MAX(MAX(PLACE.f[0], PLACE.f[1]), PLACE.f[RANKS - 1])
#define EQUAL(f) (PLACE.f[0] == PLACE.f[1] && PLACE.f[1] == PLACE.f[RANKS - 1])
#define CAN_FINISH (ME.inside && PLACE.entered == FULL)

/* Leaves the place; the last one clears it. */
inline step_out() {
  PLACE.left = PLACE.left | (1 << r);
  if
  :: PLACE.left == FULL ->
       PLACE.left = 0; PLACE.entered = 0;
       n_r = 0;
       do
       :: n_r < RANKS ->
            PLACE.kind[n_r] = 0; PLACE.one[n_r] = 0; PLACE.two[n_r] = 0; PLACE.shown[n_r] = 0; n_r++
       :: else -> break
       od;
       n_r = 0
  :: else
  fi;
  ME.inside = false;
  ME.turn = 1 - ME.turn
}

inline check_sum(tag) {
  sum_is_right = (EQUAL(kind) && EQUAL(one) && PLACE.one[r] == (tag));
  assert(sum_is_right)
}

/* Everything before `end` has its sum here, nothing behind it has one: go on over the ranks. */
inline go_over_ranks() {
  chunk_kept = (ME.has == (1 << (FIRST + ME.end)) - 1);
  assert(chunk_kept);
  printf("rank %d: over the ranks from chunk %d\n", r, FIRST + ME.end);
  ME.at = FIRST + ME.end;
  ME.last = ME.grant;
#ifndef KEEP_ALL
  net[ME.grant].good[r] = 0; net[ME.grant].bad[r] = 0;
#endif
  ME.grant = NONE; ME.base = 0; ME.done = 0; ME.lo = 0; ME.end = 0;
  ME.mode = OVER_RANKS;
  sweep()
}

inline exchanged() {
  same_collective = EQUAL(kind);
  assert(same_collective);
#ifdef NO_EXCHANGE
  ME.lo = ME.base; ME.end = OPENED;
#else
#ifdef FROM_NEWEST_BASE
  ME.lo = MAX_OF(one);
#else
  ME.lo = MIN_OF(one);
#endif
#ifdef TO_NEWEST_NEXT
  ME.end = MAX_OF(two);
#else
  ME.end = MIN_OF(two);
#endif
#endif
  step_out();
  printf("rank %d: hands over chunks %d to %d\n", r, FIRST + ME.lo, FIRST + ME.end);
  if
  :: ME.lo < ME.end -> ME.mode = HAND_OVER
  :: else -> go_over_ranks()
  fi
}

inline handed_over() {
  printf("rank %d: chunk %d handed over\n", r, FIRST + ME.lo);
#ifdef APPLY_AGAIN
  check_sum(TAG(FIRST + ME.lo));
  apply(FIRST + ME.lo);
#else
  if
  :: !HAS_RESULT(ME.lo) ->
       check_sum(TAG(FIRST + ME.lo));
       apply(FIRST + ME.lo)
  :: else
  fi;
#endif
  step_out();
  ME.lo = ME.lo + 1;
  if
  :: ME.lo == ME.end -> go_over_ranks()
  :: else
  fi
}

inline carried() {
  printf("rank %d: chunk %d carried by the ranks\n", r, ME.at);
  check_sum(TAG(ME.at));
  apply(ME.at);
  ME.at = ME.at + 1;
#ifdef LEASE_AT_DECISION
  n_g = (EQUAL(shown) && PLACE.shown[r] != 0 -> ME.hand : 0);
#elif defined(OWN_DECISION)
  n_g = ME.hand;
#else
  n_g = (EQUAL(shown) -> PLACE.shown[r] : 0);
#endif
  step_out();
  if
  :: n_g != 0 ->
       printf("rank %d: on the switch again from chunk %d, epoch %d\n", r, ME.at, net[n_g - 1].epoch);
       ME.grant = n_g - 1;
       FIRST = ME.at;
       ME.at = 0;
       ME.hand = 0;
       ME.mode = SWITCH
  :: else
  fi;
  n_g = 0
}

/* -- joining again in the background */

#define CAN_TAKE \
  (ME.mode != SWITCH && ME.last != attempt && ME.grant != attempt && \
   WANTED == attempt && up && entry == attempt && ME.hand != attempt + 1)

#ifdef LEAVES_EARLY
#define GONE (ME.has == ALL_CHUNKS)
#else
#define GONE OVER
#endif

#if CHUNKS > 4
#define EACH_POSITION(M, g) M(g, 0) M(g, 1) M(g, 2) M(g, 3) M(g, 4) M(g, 5)
#elif CHUNKS > 3
#define EACH_POSITION(M, g) M(g, 0) M(g, 1) M(g, 2) M(g, 3)
#else
#define EACH_POSITION(M, g) M(g, 0) M(g, 1) M(g, 2)
#endif

proctype Rank(byte r) {
  do
  :: d_step { CAN_OPEN ->
       printf("rank %d: sends contribution %d of epoch %d\n", r, OPENED, net[ME.grant].epoch);
       OPENED = OPENED + 1 }
  EACH_POSITION(ARRIVAL, 0) EACH_POSITION(HEARD, 0)
#if GRANTS > 1
  EACH_POSITION(ARRIVAL, 1) EACH_POSITION(HEARD, 1)
#endif
#if GRANTS > 2
  EACH_POSITION(ARRIVAL, 2) EACH_POSITION(HEARD, 2)
#endif
  :: d_step { CAN_COMPLAIN ->
       printf("rank %d: complains of the switch, epoch %d\n", r, net[ME.grant].epoch);
       if
       :: COMPLAINS
       :: else -> complaints--
       fi;
       leave = ME.grant + 1 }
  :: d_step { ME.mode == SWITCH && TOLD ->
       printf("rank %d: stops its engine\n", r);
       ME.mode = EXCHANGE }
#ifdef LEAVE_FORGOTTEN
  :: d_step { ME.mode != SWITCH && dropped[r] < leave && ME.last + 1 < leave ->
       printf("rank %d: is told to leave a lease that it does not use\n", r);
       dropped[r] = leave }
#endif
  :: d_step { CAN_ENTER(EXCHANGE) ->
       enter(EXCHANGE, ME.base, OPENED, 0) }
  :: d_step { ME.mode == EXCHANGE && CAN_FINISH -> exchanged() }
  :: d_step { CAN_ENTER(HAND_OVER) ->
       find_kept(ME.lo);
       enter(HAND_OVER, kept, 0, 0);
       kept = 0 }
  :: d_step { ME.mode == HAND_OVER && CAN_FINISH -> handed_over() }
  :: d_step { CAN_ENTER(OVER_RANKS) && ME.at < CHUNKS ->
       enter(OVER_RANKS, TAG(ME.at), 0, ME.hand) }
  :: d_step { ME.mode == OVER_RANKS && CAN_FINISH -> carried() }
  :: d_step { CAN_TAKE ->
       printf("rank %d: has the lease of epoch %d in hand\n", r, net[attempt].epoch);
       ME.hand = attempt + 1 }
  :: GONE -> break
  od
}

/* -- the controller, and the life of the switch */

inline hush() {
  quiet = true;
  n_g = 0;
  do
  :: n_g <= attempt ->
       n_r = 0;
       do
       :: n_r < RANKS -> net[n_g].good[n_r] = 0; net[n_g].bad[n_r] = 0; n_r++
       :: else -> break
       od;
       n_g++
  :: else -> break
  od;
  n_g = 0; n_r = 0
}

inline die() {
  deaths--;
  up = false;
  entry = NONE;
  n_g = 0;
  do
  :: n_g < SLOTS ->
       slot[n_g].epoch = 0; slot[n_g].chunk = 0; slot[n_g].bitmap = 0;
       n_r = 0;
       do
       :: n_r < RANKS -> slot[n_g].part[n_r] = 0; n_r++
       :: else -> break
       od;
       n_g++
  :: else -> break
  od;
  sweep()
}

#define OFF(r_) (engine[r_].mode != SWITCH)

proctype World() {
  do
  :: d_step { !quiet && !OVER && deaths > 0 && up -> printf("the switch dies\n"); die() }
  :: d_step { !OVER && !up -> printf("the switch is back\n"); up = true }
  :: d_step { !OVER && attempt + 1 < GRANTS && (OFF(0) || OFF(1) || OFF(RANKS - 1)) ->
       printf("a rank asks for a lease\n");
       attempt++;
       joined = false;
#ifdef EPOCH_TWICE
       net[attempt].epoch = net[0].epoch;
#else
       net[attempt].epoch = attempt + 1;
#endif
       sweep() }
  :: d_step { !OVER && !joined && OFF(0) && OFF(1) && OFF(RANKS - 1) ->
       printf("all ranks have joined for epoch %d\n", net[attempt].epoch);
       joined = true;
       engine[0].hand = 0; engine[1].hand = 0; engine[RANKS - 1].hand = 0 }
  :: d_step { !OVER && up && entry != NONE && entry != WANTED ->
       printf("entries of epoch %d leave the switch\n", net[entry].epoch);
       entry = NONE;
       sweep() }
  :: d_step { !OVER && up && entry == NONE && WANTED != NONE ->
       printf("entries of epoch %d\n", net[WANTED].epoch);
       entry = WANTED }
  :: d_step { !quiet && !OVER -> printf("all on its way is lost, and then no fault any more\n"); hush() }
  :: OVER -> break
  od
}

init {
  byte r;
  d_step {
    net[0].epoch = 1;
    r = 0;
    do
    :: r < RANKS -> engine[r].mode = SWITCH; engine[r].last = NONE; r++
    :: else -> break
    od;
    r = 0
  }
  atomic {
    run World();
    do
    :: r < RANKS -> run Rank(r); r++
    :: else -> break
    od
  }
}
