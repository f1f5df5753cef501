/* Two jobs on one switch: what a network without any promise, restarts and changes of leases may do to
 * the sums. See README.md. */
#ifndef RANKS
#define RANKS 3
#endif
#define JOBS 2
#define AREAS 2  /* places for a lease: 2 * WINDOW slots each */
#define SLOTS (AREAS * LEASE_SLOTS)
#ifndef CHUNKS_0
#define CHUNKS_0 3  /* chunks of job 0 and of job 1 */
#endif
#ifndef CHUNKS_1
#define CHUNKS_1 2
#endif
#ifndef MOVES
#define MOVES 1  /* restarts and changes of leases, of both jobs together */
#endif
#ifndef JOBS_RUN
#define JOBS_RUN 2  /* 1: job 0 is alone, and area 1 is free */
#endif
#define GRANTS (JOBS_RUN + MOVES)
#define NONE 15

#include "switch.pml"

/* What can do nothing any more is forgotten, which saves states: what is on its way under a grant whose
 * entries are gone and which a rank has left (the switch knows its epoch no more, and the rank hears no
 * other epoch than its own), and RESULTs that a rank has applied. Where a mutation brings an epoch back
 * or lets a rank hear another one, and with REMEMBER, all is kept. */
#if defined(EPOCH_TWICE) || defined(REPLY_EPOCH_UNCHECKED) || defined(REMEMBER)
#define KEEP_ALL
#endif

/* A grant of a lease: its job, its epoch, and everything that its ranks or the switch have ever sent
 * under it. The network loses, doubles and reorders without a bound: what was sent once may arrive at
 * any time later, any number of times, or never. */
typedef Grant {
  byte job;
  byte epoch;
  byte first[RANKS];  /* the payload that position 0 carries; equal on all ranks */
  byte next[RANKS];   /* contributions to positions below were sent */
  byte good[RANKS];   /* RESULTs to each rank, a bit for each position: with the right sum */
  byte bad[RANKS]     /* with another one */
};
Grant net[GRANTS];
byte granted;

/* What a rank's engine knows. */
typedef Engine {
  byte grant;  /* NONE: no engine */
  byte base;   /* oldest position without a result */
  byte done;   /* results that have come, a bit for each position */
  byte first   /* the payload to begin the next lease with */
};
Engine engine[JOBS * RANKS];

/* The controller's view of a job, and the switch's entries. */
mtype = { READY, RESTARTING, CHANGING, ENDED };
typedef Job {
  mtype state;
  byte grant;     /* the lease in use */
  byte coming;    /* the lease that ranks join, NONE if there is none */
  byte area;
  byte target;    /* the area of the coming lease */
  byte joined;    /* ranks that have joined it */
  byte voted;     /* ranks that have said how far they are */
  byte boundary;
  byte entry;     /* the grant that the membership table knows, NONE for none */
  byte place      /* the area that these entries give */
};
Job job[JOBS];
byte moves = MOVES;
bool quiet;  /* from now on no fault happens: the network delivers only what is sent again */

#define CHUNKS(j) ((j) == 0 -> CHUNKS_0 : CHUNKS_1)
#define TAG(g, payload) (1 + (g) * 8 + (payload))

#define WANTED(j) \
  ((job[j].state == READY || job[j].state == CHANGING || \
    (job[j].state == RESTARTING && job[j].joined == 0)) -> job[j].grant : NONE)
#define KNOWN(j, g) (job[j].entry != NONE && net[job[j].entry].epoch == net[g].epoch)
#define HOLDS(j, area_) \
  (job[j].state != ENDED && (job[j].area == (area_) || \
   (job[j].coming != NONE && job[j].target == (area_))))
#define OVER (job[0].state == ENDED && job[1].state == ENDED)

/* -- the network, from the switch */

byte n_g, n_p, n_r;
byte asking;  /* the grant of the contribution that the switch has at hand */

#ifdef KEEP_ALL
#define APPLIED(i) false
#else
#define APPLIED(i) \
  (engine[i].grant == asking && (n_p < engine[i].base || ((engine[i].done >> n_p) & 1)))
#endif

/* A RESULT with this label now exists for ranks `to`. `summed` belongs to one grant and payload. */
inline RESULT_TO(to, eno, cno) {
  n_p = POSITION_OF(cno);
  n_g = (summed == 0 -> asking : (summed - 1) / 8);
  n_r = 0;
  do
  :: n_r < RANKS ->
       if
       :: (((to) >> n_r) & 1) == 0 || APPLIED(net[asking].job * RANKS + n_r)
       :: else ->
            if
            :: summed != 0 && net[n_g].epoch == (eno) && net[n_g].first[n_r] + n_p == (summed - 1) % 8 ->
                 net[n_g].good[n_r] = net[n_g].good[n_r] | (1 << n_p)
            :: else ->
                 net[asking].bad[n_r] = net[asking].bad[n_r] | (1 << n_p)
            fi
       fi;
       n_r++
  :: else -> break
  od;
  n_g = 0; n_p = 0; n_r = 0; summed = 0
}

/* -- a rank */

#define ME engine[j * RANKS + r]
#define RUNNING (ME.grant != NONE)
#define OPENED net[ME.grant].next[r]
#define HAS(p) ((ME.done >> (p)) & 1)

/* A rank that has voted opens chunks up to the boundary only, once it knows that. */
#ifdef NO_BOUNDARY
#define HELD ((job[j].voted >> r) & 1)
#else
#define HELD \
  (job[j].state == CHANGING && ((job[j].voted >> r) & 1) && \
   (job[j].voted != FULL || net[ME.grant].first[r] + OPENED >= job[j].boundary))
#endif
#ifdef WINDOW_TOO_LARGE
#define ROOM (OPENED < ME.base + LEASE_SLOTS + 1)
#else
#define ROOM (OPENED < ME.base + WINDOW)
#endif
#define CAN_OPEN (RUNNING && ROOM && net[ME.grant].first[r] + OPENED < CHUNKS(j) && !HELD)
#define FINISHED (RUNNING && net[ME.grant].first[r] + ME.base == CHUNKS(j))

/* Contribution p of grant g is on its way, and the switch takes it from this rank. */
#define SLOT(p) SLOT_OF(job[j].place, p)
#define ARRIVES(g, p) \
  (g < granted && net[g].job == j && (p) < net[g].next[r] && KNOWN(j, g) && \
   (!quiet -> EFFECTIVE(SLOT(p), r, net[g].epoch, CHUNK_OF(p)) \
           : (ME.grant == g && (p) >= ME.base && !HAS(p) && \
              USEFUL(SLOT(p), r, net[g].epoch, CHUNK_OF(p)))))

#define ARRIVAL(g, p) \
  :: d_step { ARRIVES(g, p) -> \
       printf("job %d rank %d: contribution %d of epoch %d arrives at the switch\n", \
              j, r, p, net[g].epoch); \
       asking = g; \
       contribute(SLOT(p), r, net[g].epoch, CHUNK_OF(p), TAG(g, net[g].first[r] + (p))); \
       asking = 0 }

/* A RESULT labelled with epoch and position is believed if the rank waits for just that. */
#ifdef REPLY_EPOCH_UNCHECKED
#define MINE(g) (g < granted && net[g].job == j)
#else
#define MINE(g) (g < granted && net[g].job == j && net[g].epoch == net[ME.grant].epoch)
#endif
#define WAITS_FOR(p) (RUNNING && (p) >= ME.base && (p) < OPENED && !HAS(p))

byte sum_is_right;

inline apply(p) {
  ME.done = ME.done | (1 << p);
#ifndef KEEP_ALL
  net[ME.grant].good[r] = net[ME.grant].good[r] & ~(1 << p);
  net[ME.grant].bad[r] = net[ME.grant].bad[r] & ~(1 << p);
#endif
  do
  :: HAS(ME.base) -> ME.base = ME.base + 1
  :: else -> break
  od;
  sum_is_right = 0
}

#define HEARD(g, p) \
  :: d_step { WAITS_FOR(p) && MINE(g) && ((net[g].good[r] >> (p)) & 1) -> \
       printf("job %d rank %d: RESULT %d of epoch %d\n", j, r, p, net[g].epoch); \
       sum_is_right = (g == ME.grant); \
       assert(sum_is_right); \
       apply(p) } \
  :: d_step { WAITS_FOR(p) && MINE(g) && ((net[g].bad[r] >> (p)) & 1) -> \
       printf("job %d rank %d: RESULT %d of epoch %d with a wrong sum\n", j, r, p, net[g].epoch); \
       sum_is_right = false; \
       assert(sum_is_right) }

/* The rank's process is there for the coming lease; the old one's engine is gone. */
#ifdef NO_BOUNDARY
#define AT_BOUNDARY ((job[j].voted >> r) & 1)
#else
#define AT_BOUNDARY (job[j].voted == FULL && net[ME.grant].first[r] + ME.base == job[j].boundary)
#endif
#define CAN_JOIN \
  (!((job[j].joined >> r) & 1) && \
   (job[j].state == RESTARTING || \
    (job[j].state == CHANGING && RUNNING && OPENED == ME.base && AT_BOUNDARY)))

inline grant_lease(j) {
  net[granted].job = j;
#ifdef EPOCH_TWICE
  net[granted].epoch = net[job[j].grant].epoch;
#else
  net[granted].epoch = granted + 1;
#endif
  job[j].coming = granted;
  granted++
}

#ifdef KEEP_ALL
#define FORGET(g, r_) skip
#else
#define FORGET(g, r_) \
  net[g].next[r_] = 0; net[g].good[r_] = 0; net[g].bad[r_] = 0; net[g].first[r_] = 0
#endif

inline left_by(j, g, r_) {
  if
  :: engine[j * RANKS + r_].grant != g -> FORGET(g, r_)
  :: else
  fi
}

inline join() {
  printf("job %d rank %d: joins\n", j, r);
  ME.first = (job[j].state == CHANGING -> net[ME.grant].first[r] + ME.base : 0);
  if
  :: RUNNING && !KNOWN(j, ME.grant) -> FORGET(ME.grant, r)
  :: else
  fi;
  ME.grant = NONE; ME.base = 0; ME.done = 0;
  job[j].joined = job[j].joined | (1 << r);
  /* A new attempt gets its epoch when its first rank joins, a change when it is announced. */
  if
  :: job[j].coming == NONE -> grant_lease(j)
  :: else
  fi;
  if
  :: job[j].joined == FULL ->
       job[j].state = READY; job[j].grant = job[j].coming; job[j].area = job[j].target;
       job[j].coming = NONE; job[j].joined = 0; job[j].voted = 0; job[j].boundary = 0
  :: else
  fi
}

#define CAN_VOTE (job[j].state == CHANGING && RUNNING && !((job[j].voted >> r) & 1))

inline vote() {
  printf("job %d rank %d: has started %d\n", j, r, net[ME.grant].first[r] + OPENED);
  job[j].voted = job[j].voted | (1 << r);
  if
  :: net[ME.grant].first[r] + OPENED > job[j].boundary ->
       job[j].boundary = net[ME.grant].first[r] + OPENED
  :: else
  fi
}

#define CAN_START (!RUNNING && !((job[j].joined >> r) & 1) && WANTED(j) != NONE && job[j].entry == job[j].grant)

#if CHUNKS_0 > 4
#define EACH_POSITION(M, g) M(g, 0) M(g, 1) M(g, 2) M(g, 3) M(g, 4) M(g, 5)
#elif CHUNKS_0 > 2
#define EACH_POSITION(M, g) M(g, 0) M(g, 1) M(g, 2) M(g, 3)
#else
#define EACH_POSITION(M, g) M(g, 0) M(g, 1)
#endif

proctype Rank(byte j; byte r) {
  do
  :: d_step { CAN_OPEN ->
       printf("job %d rank %d: sends contribution %d of epoch %d\n", j, r, OPENED,
              net[ME.grant].epoch);
       OPENED = OPENED + 1 }
  EACH_POSITION(ARRIVAL, 0) EACH_POSITION(HEARD, 0)
#if GRANTS > 1
  EACH_POSITION(ARRIVAL, 1) EACH_POSITION(HEARD, 1)
#endif
#if GRANTS > 2
  EACH_POSITION(ARRIVAL, 2) EACH_POSITION(HEARD, 2)
#endif
#if GRANTS > 3
  EACH_POSITION(ARRIVAL, 3) EACH_POSITION(HEARD, 3)
#endif
  :: d_step { CAN_VOTE -> vote() }
  :: d_step { CAN_JOIN -> join() }
  :: d_step { CAN_START ->
       printf("job %d rank %d: starts with epoch %d\n", j, r, net[job[j].grant].epoch);
       ME.grant = job[j].grant;
       net[ME.grant].first[r] = ME.first;
       ME.first = 0 }
  :: OVER -> break
  od
}

/* -- the controller: what may happen to job j, and the loop that makes the tables agree */

#define OTHER(j) (1 - (j))
#define ALL_FINISHED(j) \
  (engine[j * RANKS].grant == job[j].grant && engine[j * RANKS + 1].grant == job[j].grant && \
   engine[j * RANKS + RANKS - 1].grant == job[j].grant && \
   net[job[j].grant].first[0] + engine[j * RANKS].base == CHUNKS(j) && \
   net[job[j].grant].first[1] + engine[j * RANKS + 1].base == CHUNKS(j) && \
   net[job[j].grant].first[RANKS - 1] + engine[j * RANKS + RANKS - 1].base == CHUNKS(j))

#define MAY_MOVE(j) (!quiet && moves > 0 && job[j].state == READY)

inline change(j, to) {
  printf("job %d: a change of its lease to area %d\n", j, to);
  moves--;
  job[j].state = CHANGING; job[j].target = to;
  grant_lease(j)
}

/* Entries leave before others enter. */
#define LEAVING(j) (job[j].entry != NONE && job[j].entry != WANTED(j))
#define ENTERING(j) (job[j].entry == NONE && WANTED(j) != NONE)
#ifdef ENTRIES_OVERLAP
#define NONE_LEAVING true
#else
#define NONE_LEAVING (!LEAVING(0) && !LEAVING(1))
#endif

#define CONTROL(j) \
  :: d_step { MAY_MOVE(j) -> \
       printf("job %d: a restart\n", j); \
       moves--; job[j].state = RESTARTING; job[j].target = job[j].area } \
  :: d_step { MAY_MOVE(j) -> change(j, job[j].area) } \
  :: d_step { MAY_MOVE(j) && !HOLDS(OTHER(j), 1 - job[j].area) -> change(j, 1 - job[j].area) } \
  :: d_step { job[j].state == READY && ALL_FINISHED(j) -> \
       printf("job %d: ends\n", j); job[j].state = ENDED } \
  :: d_step { LEAVING(j) -> \
       printf("job %d: its entries leave the switch\n", j); \
       left_by(j, job[j].entry, 0); \
       left_by(j, job[j].entry, 1); \
       left_by(j, job[j].entry, RANKS - 1); \
       job[j].entry = NONE } \
  :: d_step { ENTERING(j) && NONE_LEAVING -> \
       printf("job %d: entries of epoch %d, area %d\n", j, net[WANTED(j)].epoch, job[j].area); \
       job[j].entry = WANTED(j); job[j].place = job[j].area }

/* The RESULTs on their way are lost; contributions count from now on as sent again (ARRIVES). */
inline hush() {
  quiet = true;
  n_g = 0;
  do
  :: n_g < granted ->
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

proctype Controller() {
  do
  CONTROL(0)
  CONTROL(1)
  :: d_step { !quiet && !OVER -> printf("all on its way is lost, and then no fault any more\n"); hush() }
  :: OVER -> break
  od
}

init {
  byte j, r;
  d_step {
    j = 0;
    do
    :: j < JOBS_RUN ->
         job[j].state = READY;
         job[j].area = j; job[j].target = j; job[j].place = j;
         net[j].job = j; net[j].epoch = j + 1;
         job[j].grant = j; job[j].entry = j; job[j].coming = NONE;
         r = 0;
         do
         :: r < RANKS -> engine[j * RANKS + r].grant = j; r++
         :: else -> break
         od;
         j++
    :: else -> break
    od;
    granted = JOBS_RUN;
#if JOBS_RUN < JOBS
    job[1].state = ENDED; job[1].entry = NONE; job[1].coming = NONE;
#endif
    j = 0; r = 0
  }
  atomic {
    run Controller();
    j = 0;
    do
    :: j < JOBS_RUN ->
         r = 0;
         do
         :: r < RANKS -> run Rank(j, r); r++
         :: else -> break
         od;
         j++
    :: else -> break
    od
  }
}
