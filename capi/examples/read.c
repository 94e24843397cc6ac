/* Reads a session, prints it, and times reads of it.
 *
 *     cargo build --release -p annulus-capi
 *     cc -std=c99 -O2 -Wall -Icapi/include capi/examples/read.c -o read \
 *        -Ltarget/release -lannulus -Wl,-rpath,"$PWD/target/release"
 *     ln -sf libannulus.so target/release/libannulus.so.1
 *     ./read /dev/shm/annulus-dev-*-sessions KEY [READS]
 *
 * or, without a shared library to find at run time:
 *
 *     cc -std=c99 -O2 -Wall -Icapi/include capi/examples/read.c -o read \
 *        target/release/libannulus.a -lpthread -ldl -lm
 *
 * Ends with 0 if the session lives, 3 if it was ended, 4 if a node has to be asked, 5 if it is used
 * too much, 1 otherwise.
 */
#define _POSIX_C_SOURCE 199309L

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "annulus.h"

/* A buffer that grows with what it has to hold. */
struct buffer {
    unsigned char *bytes;
    size_t size;
};

static int get(const annulus_reader *reader, const char *key, struct buffer *buffer,
               annulus_session *session)
{
    for (;;) {
        int status = annulus_get(reader, (const unsigned char *)key, strlen(key), buffer->bytes,
                                 buffer->size, session);
        unsigned char *larger;
        if (status != ANNULUS_TOO_SMALL)
            return status;
        larger = realloc(buffer->bytes, session->needed);
        if (larger == NULL)
            return ANNULUS_E_INTERNAL;
        buffer->bytes = larger;
        buffer->size = session->needed;
    }
}

static void print(const annulus_session *session)
{
    printf("version %" PRIu64 ".%" PRIu64 "@%012" PRIx64 "\n", session->version.hlc >> 16,
           session->version.hlc & 0xffff, session->version.node);
    if (session->deadline_ms != 0)
        printf("expires in %" PRIu64 " ms\n", session->deadline_ms - session->read_at_ms);
    if (session->kind == ANNULUS_MAP) {
        annulus_field field;
        size_t cursor = 0;
        while (annulus_map_next(session, &cursor, &field) == 1)
            printf("field %.*s = %.*s\n", (int)field.name_size, (const char *)field.name,
                   (int)field.value_size, (const char *)field.value);
    } else {
        printf("value %.*s\n", (int)session->value_size, (const char *)session->value);
    }
}

static double now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

int main(int argc, char **argv)
{
    struct buffer buffer = {NULL, 0};
    annulus_session session;
    annulus_reader *reader;
    int status;
    long reads = argc > 3 ? atol(argv[3]) : 0;

    if (argc < 3) {
        fprintf(stderr, "usage: %s SEGMENT KEY [READS]\n", argv[0]);
        return 1;
    }
    if (annulus_abi() != ANNULUS_ABI) {
        fprintf(stderr, "another version of libannulus is loaded\n");
        return 1;
    }
    if (annulus_open(argv[1], &reader) != ANNULUS_OK) {
        fprintf(stderr, "%s\n", annulus_last_error());
        return 1;
    }
    status = get(reader, argv[2], &buffer, &session);
    if (status == ANNULUS_LIVE)
        print(&session);
    else
        printf("%s\n", annulus_strerror(status));

    if (status == ANNULUS_LIVE && reads > 0) {
        double begin = now_ns();
        long read, live = 0;
        for (read = 0; read < reads; read++)
            live += get(reader, argv[2], &buffer, &session) == ANNULUS_LIVE;
        printf("%ld of %ld reads, %.1f ns each\n", live, reads, (now_ns() - begin) / (double)reads);
    }
    free(buffer.bytes);
    annulus_close(reader);
    switch (status) {
    case ANNULUS_LIVE:
        return 0;
    case ANNULUS_ENDED:
        return 3;
    case ANNULUS_SLOW_DOWN:
        return 5;
    default:
        return ANNULUS_MUST_ASK(status) ? 4 : 1;
    }
}
