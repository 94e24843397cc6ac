/* annulus.h: sessions out of this host's shared memory.
 *
 * A node keeps the sessions of a table in a segment of shared memory; any process of the host that
 * may read the file reads them here: no lock, no system call, well under a microsecond. This
 * library reads. Whatever it has no answer to, and every write, goes to a node (its socket, or the
 * Redis protocol). It knows nothing of writes that you sent to a node of another host: who must
 * read back what it wrote there asks a node.
 *
 *     annulus_reader *reader;
 *     unsigned char buffer[4096];
 *     annulus_session session;
 *
 *     if (annulus_open_table(NULL, "my-cluster", "sessions", &reader) != ANNULUS_OK)
 *         return fail(annulus_last_error());
 *     switch (annulus_get(reader, key, key_size, buffer, sizeof buffer, &session)) {
 *     case ANNULUS_LIVE:      use(session.value, session.value_size); break;
 *     case ANNULUS_ENDED:     log_in_again(); break;
 *     case ANNULUS_TOO_SMALL: try_again_with(session.needed); break;
 *     case ANNULUS_SLOW_DOWN: wait_for(session.deadline_ms - session.read_at_ms); break;
 *     default:                ask_a_node(); break;
 *     }
 *     annulus_close(reader);
 *
 * Link with -lannulus, or with libannulus.a -lpthread -ldl -lm. Linux; C99 or C++.
 *
 * Threads: a reader may be used by any number of threads at once, annulus_reopen included, and
 * after a fork by both processes. Only annulus_close must be the last call that uses it.
 *
 * Memory: what you pass in stays yours and is not kept. What comes out points into your buffer,
 * and is good until you change the buffer. Nothing points into shared memory.
 *
 * Wrong use: null and misaligned pointers, impossible sizes, and buffers that overlap are answered
 * with ANNULUS_E_ARGUMENT. A pointer to memory that is not there cannot be noticed.
 *
 * Time: hybrid milliseconds are milliseconds since 1970 as the cluster's nodes agree on them. They
 * may differ from this host's clock; compare them with `read_at_ms`, which is of the same clock.
 */
#ifndef ANNULUS_H
#define ANNULUS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The number of this interface. Compare it with annulus_abi() if you load the library at run time.
 * Within one number nothing below changes its meaning or place; codes may be added. */
#define ANNULUS_ABI 1

/* What calls return. Zero and above are answers, below zero are errors. */
enum annulus_status {
    ANNULUS_OK = 0,
    /* The session lives, and its value is in the buffer. */
    ANNULUS_LIVE = 0,
    /* The session was ended; nothing brings it back. */
    ANNULUS_ENDED = 1,

    /* 2 to 7: shared memory cannot tell. Ask a node. None of these means that there is no session.
     * Treat codes of this range that you do not know alike: see ANNULUS_MUST_ASK. */

    /* Not in this host's table. It may live on other hosts. */
    ANNULUS_MISS = 2,
    /* This host's copy has expired. A use of it may have reached another host. */
    ANNULUS_EXPIRED = 3,
    /* The node does not, or no longer, vouch for this part of the table: it is starting, not in
     * sync, cut off, or gone. If it lasts, see annulus_detached. */
    ANNULUS_STALE = 4,
    /* The record changed each time it was read. */
    ANNULUS_CONTENDED = 5,
    /* The record makes no sense, or is of a format that this library does not know. */
    ANNULUS_DAMAGED = 6,
    /* The node gave this segment up: annulus_reopen. */
    ANNULUS_NOT_ATTACHED = 7,

    /* There is a session, but not the room for it: session.needed says how much it takes now. */
    ANNULUS_TOO_SMALL = 8,

    /* The session is used too much, and kept away from its users until session.deadline_ms: ask
     * again then, and not before. A node says the same. */
    ANNULUS_SLOW_DOWN = 9,

    /* An argument is impossible: see "Wrong use". */
    ANNULUS_E_ARGUMENT = -1,
    /* There is no such file or table, or it may not be read. See annulus_last_error. */
    ANNULUS_E_OPEN = -2,
    /* The file is no segment that this library can read: another version, damaged, from before a
     * reboot, or given up by its node. See annulus_last_error. */
    ANNULUS_E_SEGMENT = -3,
    /* Several nodes made such a table in this directory: annulus_open with a path. */
    ANNULUS_E_AMBIGUOUS = -4,
    /* A bug in this library; nothing was changed. */
    ANNULUS_E_INTERNAL = -5
};

/* Whether a status means that a node has to be asked. */
#define ANNULUS_MUST_ASK(status) ((status) >= ANNULUS_MISS && (status) <= ANNULUS_NOT_ATTACHED)

/* What kind of value a session has. */
enum annulus_kind {
    /* There is none: the status is not ANNULUS_LIVE. */
    ANNULUS_NONE = 0,
    /* A string of bytes: value, value_size. */
    ANNULUS_BYTES = 1,
    /* Named fields: annulus_map_next, annulus_map_get. `value` is not for reading yourself. Of a set, its members; of a
     * sorted one, with scores in decimal, as text. */
    ANNULUS_MAP = 2
};

/* Longest key in bytes. */
#define ANNULUS_KEY_MAX 255

/* An attached table. */
typedef struct annulus_reader annulus_reader;

/* Which write: in order by hlc, then by node. */
typedef struct annulus_version {
    /* Hybrid milliseconds in the upper 48 bits, a counter in the lower 16. */
    uint64_t hlc;
    /* The node that stamped it; 48 bits. */
    uint64_t node;
} annulus_version;

/* A key, for annulus_get_many. */
typedef struct annulus_key {
    const unsigned char *bytes;
    /* 1 to ANNULUS_KEY_MAX. */
    size_t size;
} annulus_key;

/* What was found under a key. What does not apply is 0. */
typedef struct annulus_session {
    /* One of enum annulus_status. */
    int32_t status;
    /* One of enum annulus_kind. */
    uint32_t kind;
    /* The write that created the session: what has another birth is another session. LIVE, ENDED,
     * SLOW_DOWN. */
    annulus_version birth;
    /* The last write. LIVE, ENDED, SLOW_DOWN. */
    annulus_version version;
    /* When it expires unless it is used, in hybrid milliseconds; 0 = never. LIVE.
     * When to ask again, in hybrid milliseconds. SLOW_DOWN. */
    uint64_t deadline_ms;
    /* When it was last used, in hybrid milliseconds. LIVE. */
    uint64_t touched_ms;
    /* When it was read, in hybrid milliseconds, behind by up to a clock tick (1-10 ms). LIVE,
     * SLOW_DOWN. */
    uint64_t read_at_ms;
    /* The value, in your buffer; not aligned. LIVE. */
    const unsigned char *value;
    size_t value_size;
    /* What it takes of a buffer, in bytes: the value, and a head of 16 to 472 bytes before it.
     * LIVE, ENDED, SLOW_DOWN, TOO_SMALL. */
    size_t needed;
} annulus_session;

/* A field of a map; the pointers lead into the session's buffer. */
typedef struct annulus_field {
    const unsigned char *name;
    size_t name_size;
    const unsigned char *value;
    size_t value_size;
    /* The write that set it. */
    annulus_version version;
    /* When it expires on its own, in hybrid milliseconds; 0 = with its session. */
    uint64_t expire_at_ms;
} annulus_field;

/* ANNULUS_ABI of the library that is loaded. */
uint32_t annulus_abi(void);

/* Attaches to the segment in this file, and sets *out, to NULL after an error.
 * OK, E_ARGUMENT, E_OPEN, E_SEGMENT. Maps the file read-only. */
int annulus_open(const char *path, annulus_reader **out);

/* Attaches to a table by its name and its cluster's. `directory` is the node's shm_dir; NULL is
 * /dev/shm. Nodes name their segments annulus-CLUSTER-NODE-TABLE; with several nodes, or what
 * is left of one, in a directory, this is E_AMBIGUOUS. Otherwise as annulus_open. */
int annulus_open_table(const char *directory, const char *cluster, const char *table,
                       annulus_reader **out);

/* Lets go of it. NULL is allowed. No other call may use it meanwhile or after. */
void annulus_close(annulus_reader *reader);

/* 1 if the node gave the segment up, or its file is gone or another one now: annulus_reopen. 0 if
 * not. E_ARGUMENT. Costs a system call: ask when gets say STALE or NOT_ATTACHED, now and then. A
 * node that restarts normally goes on with its segment, and nothing has to be done. */
int annulus_detached(const annulus_reader *reader);

/* Attaches anew, as it was opened; gets under way in other threads finish on the old segment.
 * As annulus_open; after an error the old segment stays attached. */
int annulus_reopen(annulus_reader *reader);

/* Looks a key up, copies what is found into the buffer, fills *out and returns out->status.
 *
 * The buffer may be NULL if its size is 0. After anything but LIVE its content means nothing. A
 * LIVE, ENDED or SLOW_DOWN session is what was published at one instant during the call, of a part
 * of the table that the node vouched for then; expired sessions are EXPIRED. No system call, no
 * lock, no allocation. */
int annulus_get(const annulus_reader *reader, const unsigned char *key, size_t key_size,
                unsigned char *buffer, size_t buffer_size, annulus_session *out);

/* Looks `count` keys up and fills out[0] to out[count - 1], each as annulus_get does, with an
 * instant of its own. Values lie in the buffer one behind another; what does not fit is TOO_SMALL,
 * and shorter ones after it may still fit. A key that is impossible is E_ARGUMENT in its place.
 * Cheaper per key than single gets: up to 16 lookups wait for memory together. May allocate.
 * OK (look at each status), or E_ARGUMENT or E_INTERNAL, and then out is not filled. */
int annulus_get_many(const annulus_reader *reader, const annulus_key *keys, size_t count,
                     unsigned char *buffer, size_t buffer_size, annulus_session *out);

/* Walks the fields of an ANNULUS_MAP in ascending order of names, without the deleted ones and
 * those that had expired when it was read. Begin with *cursor = 0. 1: *out is the next; 0: there
 * are no more; E_ARGUMENT: no map, or its buffer was changed. Allocates nothing.
 *
 *     size_t cursor = 0;
 *     while (annulus_map_next(&session, &cursor, &field) == 1) ... */
int annulus_map_next(const annulus_session *session, size_t *cursor, annulus_field *out);

/* The field with this name: 1, or 0 if there is none. Walks the map. E_ARGUMENT as above. */
int annulus_map_get(const annulus_session *session, const unsigned char *name, size_t name_size,
                    annulus_field *out);

/* A sentence about a code; never NULL, never freed. */
const char *annulus_strerror(int code);

/* What the last open or reopen of this thread that failed met: which file, and why. Empty if none
 * has. Good until the next such failure. Never contains a key. */
const char *annulus_last_error(void);

#ifdef __cplusplus
}
#endif

#endif
