/* Subscribers of server-sent events, as many as asked for, in one process that does hardly anything: it looks for marks
 * in what comes, which say when the event was sent, and counts how long ago that was.
 *
 * usage: sse_load PORT CONNECTIONS PATH COUNTERS
 *
 * PATH may hold one %d, for the number of the connection. COUNTERS is a file that is mapped: 64-bit numbers, in order
 * [0] events received, [1] connections with a 200, [2] connections lost or refused, [3] bytes received, and from [16] on
 * the histogram: event latencies in microseconds by logarithmic bucket (see bucket()). It runs until it is killed.
 *
 * A mark is ~T and 16 digits: microseconds of CLOCK_MONOTONIC.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MARK 18
#define TAIL (MARK - 1)
#define AT_ONCE 40 /* connections being opened at a time: less than a listen backlog */
#define BUCKETS 2048

struct client {
    int fd, answered, tail;
    char kept[TAIL]; /* the end of the last read, where a mark may have begun */
};

static volatile uint64_t *counters;
static char buffer[TAIL + 262144];

static uint64_t now(void)
{
    struct timespec moment;
    clock_gettime(CLOCK_MONOTONIC, &moment);
    return (uint64_t)moment.tv_sec * 1000000 + moment.tv_nsec / 1000;
}

/* 32 buckets for each power of two, so that a bucket is 3 % wide; below 32 exact. */
static unsigned bucket(uint64_t value)
{
    if (value < 32)
        return value;
    unsigned exponent = 63 - __builtin_clzll(value);
    unsigned found = (exponent - 4) * 32 + ((value >> (exponent - 5)) & 31);
    return found < BUCKETS ? found : BUCKETS - 1;
}

static void scan(struct client *client, char *data, size_t length, uint64_t received)
{
    char *end = data + length, *at = data;
    while ((at = memchr(at, '~', end - at)) != NULL && end - at >= MARK) {
        if (at[1] == 'T') {
            uint64_t sent = 0;
            for (int digit = 2; digit < MARK; digit++)
                sent = sent * 10 + (at[digit] - '0');
            counters[0]++;
            counters[16 + bucket(received > sent ? received - sent : 0)]++;
            at += MARK;
        } else
            at++;
    }
    client->tail = at == NULL ? 0 : end - at;
    if (client->tail)
        memcpy(client->kept, at, client->tail);
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

int main(int count, char **arguments)
{
    if (count != 5)
        return 2;
    int connections = atoi(arguments[2]), opened = 0, opening = 0;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(arguments[1]))};
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    int file = open(arguments[4], O_RDWR);
    counters = mmap(NULL, (16 + BUCKETS) * 8, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (counters == MAP_FAILED)
        fail("counters");
    struct client *clients = calloc(connections, sizeof *clients);
    int poll = epoll_create1(0);
    struct epoll_event events[256];
    for (;;) {
        while (opened < connections && opening < AT_ONCE) {
            struct client *client = &clients[opened];
            char path[256], request[512];
            client->fd = socket(AF_INET, SOCK_STREAM, 0);
            if (client->fd < 0 || connect(client->fd, (struct sockaddr *)&address, sizeof address) < 0)
                fail("connect");
            snprintf(path, sizeof path, arguments[3], opened);
            int length = snprintf(request, sizeof request,
                "GET %s HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n", path);
            if (write(client->fd, request, length) != length)
                fail("request");
            fcntl(client->fd, F_SETFL, O_NONBLOCK);
            struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = client};
            epoll_ctl(poll, EPOLL_CTL_ADD, client->fd, &wanted);
            opened++, opening++;
        }
        int ready = epoll_wait(poll, events, 256, -1);
        for (int index = 0; index < ready; index++) {
            struct client *client = events[index].data.ptr;
            memcpy(buffer, client->kept, client->tail);
            ssize_t got = read(client->fd, buffer + client->tail, sizeof buffer - TAIL);
            if (got < 0 && (errno == EAGAIN || errno == EINTR))
                continue;
            if (got <= 0) {
                close(client->fd);
                counters[2]++;
                if (!client->answered)
                    opening--;
                continue;
            }
            counters[3] += got;
            if (!client->answered) {
                client->answered = 1;
                opening--;
                if (got < 12 || memcmp(buffer + 8, " 200", 4) != 0)
                    counters[2]++;
                else
                    counters[1]++;
            }
            scan(client, buffer, client->tail + got, now());
        }
    }
}
