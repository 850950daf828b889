/* A MongoDB that keeps nothing and answers at once, so that what storing costs is the contender's own. Argument: port.

   It speaks the wire protocol as drivers do: OP_QUERY for the first hello, OP_MSG for everything else, documents of an
   insert in a sequence of their own or in the command. Of each document it looks at two fields: `message_id`, a string
   that ends in "-" and the message's number, and `body`, which has to be a document. For every number it keeps the
   moment when it came first, so it can tell what is missing and what came twice. One that lacks either field, or whose
   number is too high, is counted as strange. Every insert is answered with success; all commands but these are, too:

     sinkReset    forget everything
     sinkReport   documents, distinct, repeated, strange, inserts, largest (documents in one insert, since the last
                  report), last_at (when the last insert came)
     sinkTimes    int32 "from" and "count": the moments as int64, one after another; 0 is missing

   Moments are nanoseconds of the monotonic clock. It listens on the loopback interface, prints a line once it does, and
   ends when its standard input does. What is not the protocol ends a connection. */

#define _GNU_SOURCE /* accept4 */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define OP_REPLY 1
#define OP_QUERY 2004
#define OP_MSG 2013
#define HEADER 16
#define MAX_MESSAGE 48000000 /* maxMessageSizeBytes of a MongoDB */
#define MAX_NUMBER 16000000  /* of a message: 128 MB of moments */
#define MAX_TIMES 2000000    /* in one answer, which has to stay under 16 MB */
#define FIRST_READ 65536

typedef struct {
  int fd;
  unsigned char *data;
  size_t used, room;
} peer_t;

/* An answer under construction: a document, with its length filled in at the end. */
typedef struct {
  unsigned char *data;
  size_t used, room;
} answer_t;

static int64_t *moments;
static int64_t used_moments; /* those from here on are 0 */
static int64_t documents, distinct, repeated, strange, inserts, last_at;
static int32_t largest;

static void die(const char *what) {
  fprintf(stderr, "mongo_sink: %s\n", what);
  exit(1);
}

static void *grown(void *old, size_t size) {
  void *more = realloc(old, size);
  if (!more) die("no memory");
  return more;
}

static int32_t int32_at(const unsigned char *at) {
  int32_t value;
  memcpy(&value, at, 4); /* BSON and x86-64 are both little-endian; so is whatever runs this */
  return value;
}

/* --- reading BSON --- */

/* One element of a document; `value` is where its value begins. */
typedef struct {
  int type;
  const char *name;
  const unsigned char *value;
} element_t;

/* The bytes of a document or array at `at`, 0 when it does not lie before `end`. */
static size_t document_size(const unsigned char *at, const unsigned char *end) {
  if (end - at < 5) return 0;
  int32_t size = int32_at(at);
  return size < 5 || size > end - at || at[size - 1] != 0 ? 0 : (size_t)size;
}

/* The bytes of a string up to its NUL, which included; -1 when there is none before `end`. */
static int64_t cstring_size(const unsigned char *at, const unsigned char *end) {
  const unsigned char *nul = at < end ? memchr(at, 0, (size_t)(end - at)) : NULL;
  return nul ? nul + 1 - at : -1;
}

/* How long a value is; -1 when it reaches beyond `end` or is of no known type. */
static int64_t value_size(int type, const unsigned char *at, const unsigned char *end) {
  int64_t size;
  switch (type) {
    case 0x01: case 0x09: case 0x11: case 0x12: size = 8; break;
    case 0x02: case 0x0d: case 0x0e: size = end - at < 4 ? -1 : 4 + (int64_t)int32_at(at); break;
    case 0x03: case 0x04: size = document_size(at, end) ? (int64_t)document_size(at, end) : -1; break;
    case 0x05: size = end - at < 4 ? -1 : 5 + (int64_t)int32_at(at); break;
    case 0x06: case 0x0a: case 0x7f: case 0xff: size = 0; break;
    case 0x07: size = 12; break;
    case 0x08: size = 1; break;
    case 0x0b: /* a regular expression and its options */
      size = cstring_size(at, end);
      if (size > 0) size = cstring_size(at + size, end) < 0 ? -1 : size + cstring_size(at + size, end);
      break;
    case 0x10: size = 4; break;
    case 0x13: size = 16; break;
    default: return -1;
  }
  return size < 0 || size > end - at ? -1 : size;
}

/* The element at `*at`, which moves on to the next. 1, 0 at the document's end, -1 when it is broken. */
static int next_element(const unsigned char **at, const unsigned char *end, element_t *element) {
  if (*at >= end) return -1;
  element->type = *(*at)++;
  if (element->type == 0) return 0;
  element->name = (const char *)*at;
  int64_t size = cstring_size(*at, end);
  if (size < 0) return -1;
  element->value = *at + size;
  size = value_size(element->type, element->value, end);
  if (size < 0) return -1;
  *at = element->value + size;
  return 1;
}

/* The message's number out of "meter-001-0000000042"; -1 when there is none, or it is too high. */
static int64_t number_of(const unsigned char *string) {
  int32_t length = int32_at(string) - 1;
  const char *text = (const char *)string + 4;
  int64_t number = 0, scale = 1;
  int32_t place = length - 1;
  for (; place >= 0 && text[place] >= '0' && text[place] <= '9'; place--) {
    if (scale > MAX_NUMBER && text[place] != '0') return -1;
    number += (text[place] - '0') * scale;
    if (scale <= MAX_NUMBER) scale *= 10;
  }
  return place < 0 || place == length - 1 || text[place] != '-' || number >= MAX_NUMBER ? -1 : number;
}

static int count_document(const unsigned char *document, size_t size, int64_t now) {
  const unsigned char *at = document + 4, *end = document + size;
  int64_t number = -1;
  int has_body = 0, found;
  element_t element;
  while ((found = next_element(&at, end, &element)) == 1) {
    if (element.type == 0x02 && !strcmp(element.name, "message_id")) {
      if (int32_at(element.value) < 1) return -1;
      number = number_of(element.value);
    } else if (!strcmp(element.name, "body")) {
      has_body = element.type == 0x03;
    }
  }
  if (found < 0) return -1;
  documents++;
  if (number < 0 || !has_body) {
    strange++;
  } else if (moments[number]) {
    repeated++;
  } else {
    moments[number] = now;
    distinct++;
    if (number >= used_moments) used_moments = number + 1;
  }
  return 0;
}

/* --- writing BSON --- */

static void add(answer_t *answer, const void *data, size_t size) {
  if (answer->used + size > answer->room) {
    answer->room = 2 * (answer->used + size);
    answer->data = grown(answer->data, answer->room);
  }
  memcpy(answer->data + answer->used, data, size);
  answer->used += size;
}

static void add_name(answer_t *answer, int type, const char *name) {
  unsigned char byte = (unsigned char)type;
  add(answer, &byte, 1);
  add(answer, name, strlen(name) + 1);
}

static void add_double(answer_t *answer, const char *name, double value) {
  add_name(answer, 0x01, name);
  add(answer, &value, 8);
}

static void add_bool(answer_t *answer, const char *name, int value) {
  unsigned char byte = (unsigned char)value;
  add_name(answer, 0x08, name);
  add(answer, &byte, 1);
}

static void add_int32(answer_t *answer, const char *name, int32_t value) {
  add_name(answer, 0x10, name);
  add(answer, &value, 4);
}

static void add_int64(answer_t *answer, const char *name, int64_t value) {
  add_name(answer, 0x12, name);
  add(answer, &value, 8);
}

static void add_string(answer_t *answer, const char *name, const char *value) {
  int32_t size = (int32_t)strlen(value) + 1;
  add_name(answer, 0x02, name);
  add(answer, &size, 4);
  add(answer, value, (size_t)size);
}

/* --- commands --- */

static int64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static int is_one_of(const char *name, const char *const *names) {
  for (; *names; names++)
    if (!strcmp(name, *names)) return 1;
  return 0;
}

static void say_hello(answer_t *answer) {
  add_bool(answer, "helloOk", 1);
  add_bool(answer, "ismaster", 1);
  add_bool(answer, "isWritablePrimary", 1);
  add_int32(answer, "maxBsonObjectSize", 16777216);
  add_int32(answer, "maxMessageSizeBytes", MAX_MESSAGE);
  add_int32(answer, "maxWriteBatchSize", 100000);
  add_int32(answer, "logicalSessionTimeoutMinutes", 30); /* drivers then number their sessions, as with a MongoDB */
  add_int32(answer, "minWireVersion", 0);
  add_int32(answer, "maxWireVersion", 21); /* MongoDB 7.0 */
  add_bool(answer, "readOnly", 0);
}

static void report(answer_t *answer) {
  add_int64(answer, "documents", documents);
  add_int64(answer, "distinct", distinct);
  add_int64(answer, "repeated", repeated);
  add_int64(answer, "strange", strange);
  add_int64(answer, "inserts", inserts);
  add_int32(answer, "largest", largest);
  add_int64(answer, "last_at", last_at);
  largest = 0;
}

static void reset(void) {
  memset(moments, 0, (size_t)used_moments * sizeof *moments);
  used_moments = documents = distinct = repeated = strange = inserts = last_at = largest = 0;
}

static int tell_times(answer_t *answer, const unsigned char *body, size_t size) {
  const unsigned char *at = body + 4;
  int32_t from = 0, count = 0, bytes;
  element_t element;
  while (next_element(&at, body + size, &element) == 1) {
    if (element.type == 0x10 && !strcmp(element.name, "from")) from = int32_at(element.value);
    if (element.type == 0x10 && !strcmp(element.name, "count")) count = int32_at(element.value);
  }
  if (from < 0 || count < 0 || count > MAX_TIMES || from > MAX_NUMBER - count) return 0;
  bytes = count * 8;
  add_name(answer, 0x05, "times");
  add(answer, &bytes, 4);
  add(answer, "", 1); /* the generic kind of binary */
  add(answer, moments + from, (size_t)bytes);
  return 1;
}

/* Answer the command in `body`; `sequence` to `end` are documents that came beside it. 0 when the bytes are broken. */
static int obey(answer_t *answer, const unsigned char *body, size_t size, const unsigned char *sequence,
                const unsigned char *end) {
  static const char *const hello[] = {"hello", "isMaster", "ismaster", NULL};
  const unsigned char *at = body + 4;
  element_t element;
  if (next_element(&at, body + size, &element) != 1) return 0;
  const char *name = element.name;
  double ok = 1;
  if (!strcmp(name, "insert")) {
    int32_t count = 0;
    int64_t now = now_ns();
    int found;
    for (; sequence < end; count++) {
      size_t one = document_size(sequence, end);
      if (!one || count_document(sequence, one, now) < 0) return 0;
      sequence += one;
    }
    while ((found = next_element(&at, body + size, &element)) == 1) {
      if (element.type != 0x04 || strcmp(element.name, "documents")) continue;
      const unsigned char *inner = element.value + 4, *last = element.value + int32_at(element.value);
      element_t document;
      for (; (found = next_element(&inner, last, &document)) == 1; count++)
        if (document.type != 0x03 || count_document(document.value, (size_t)int32_at(document.value), now) < 0) return 0;
      if (found < 0) return 0;
    }
    if (found < 0) return 0;
    inserts++;
    if (count > largest) largest = count;
    last_at = now;
    add_int32(answer, "n", count);
  } else if (is_one_of(name, hello)) {
    say_hello(answer);
  } else if (!strcmp(name, "sinkReport")) {
    report(answer);
  } else if (!strcmp(name, "sinkReset")) {
    reset();
  } else if (!strcmp(name, "sinkTimes")) {
    ok = tell_times(answer, body, size);
  } else if (!strcmp(name, "listIndexes")) {
    ok = 0;
    add_int32(answer, "code", 26);
    add_string(answer, "codeName", "NamespaceNotFound");
    add_string(answer, "errmsg", "ns does not exist");
  }
  add_double(answer, "ok", ok);
  return 1;
}

/* --- the wire --- */

static int send_all(int fd, const unsigned char *data, size_t size) {
  while (size) {
    ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
      struct pollfd writable = {fd, POLLOUT, 0};
      poll(&writable, 1, -1);
    } else if (sent < 0) {
      return 0;
    } else {
      data += sent;
      size -= (size_t)sent;
    }
  }
  return 1;
}

/* One whole message: 1 when the connection may go on. */
static int handle(int fd, const unsigned char *message, size_t size) {
  static answer_t answer;
  int32_t opcode = int32_at(message + 12), header[4] = {0, 0, int32_at(message + 4), 0};
  const unsigned char *at = message + HEADER, *end = message + size;
  const unsigned char *body = NULL, *sequence = end, *sequence_end = end;
  size_t body_size = 0, start;
  int silent = 0;
  if (end - at < 5) return 0;
  if (opcode == OP_MSG) {
    int32_t flags = int32_at(at);
    silent = flags & 2;                 /* moreToCome: nobody waits for an answer */
    if (flags & 1) end -= 4;            /* a checksum */
    for (at += 4; at < end;) {
      int kind = *at++;
      if (kind == 0) {
        body = at;
        body_size = document_size(at, end);
        if (!body_size) return 0;
        at += body_size;
      } else if (kind == 1) {
        int32_t length = end - at < 5 ? 0 : int32_at(at);
        const unsigned char *nul = length < 5 || length > end - at ? NULL : memchr(at + 4, 0, (size_t)length - 4);
        if (!nul) return 0;
        if (!strcmp((const char *)at + 4, "documents")) {
          sequence = nul + 1;
          sequence_end = at + length;
        }
        at += length;
      } else {
        return 0;
      }
    }
    static const unsigned char no_flags[5] = {0};
    answer.used = 0;
    add(&answer, header, HEADER);
    add(&answer, no_flags, 5);
    header[3] = OP_MSG;
  } else if (opcode == OP_QUERY) {
    const unsigned char *nul = memchr(at + 4, 0, (size_t)(end - at) - 4);
    if (!nul || end - nul < 14) return 0;
    body = nul + 9;
    body_size = document_size(body, end);
    if (!body_size) return 0;
    static const unsigned char one_document[20] = {[16] = 1};
    answer.used = 0;
    add(&answer, header, HEADER);
    add(&answer, one_document, 20);
    header[3] = OP_REPLY;
  }
  if (!body) return 0;
  start = answer.used;
  add(&answer, "\0\0\0", 4); /* its length */
  if (!obey(&answer, body, body_size, sequence, sequence_end)) return 0;
  add(&answer, "", 1);
  int32_t length = (int32_t)(answer.used - start);
  memcpy(answer.data + start, &length, 4);
  header[0] = (int32_t)answer.used;
  memcpy(answer.data, header, HEADER);
  return silent || send_all(fd, answer.data, answer.used);
}

/* What came on a connection: 1 when it may go on. */
static int readable(peer_t *peer) {
  if (peer->room - peer->used < FIRST_READ / 2) {
    peer->room = 2 * peer->room + FIRST_READ;
    peer->data = grown(peer->data, peer->room);
  }
  ssize_t got = recv(peer->fd, peer->data + peer->used, peer->room - peer->used, 0);
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  if (got == 0) return 0;
  peer->used += (size_t)got;
  size_t done = 0;
  while (peer->used - done >= HEADER) {
    int32_t size = int32_at(peer->data + done);
    if (size < HEADER || size > MAX_MESSAGE) return 0;
    if (peer->used - done < (size_t)size) break;
    if (!handle(peer->fd, peer->data + done, (size_t)size)) return 0;
    done += (size_t)size;
  }
  peer->used -= done;
  memmove(peer->data, peer->data + done, peer->used);
  return 1;
}

static void watch(int poller, int fd, void *what) {
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = what};
  if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event)) die("cannot watch a socket");
}

int main(int argc, char **argv) {
  static char listening, standard_input;
  int yes = 1, listener = socket(AF_INET, SOCK_STREAM, 0), poller = epoll_create1(0);
  if (argc != 2) die("argument: port");
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64)) die("cannot listen");
  moments = calloc(MAX_NUMBER, sizeof *moments);
  if (!moments) die("no memory");
  watch(poller, listener, &listening);
  watch(poller, 0, &standard_input);
  puts("listening");
  fflush(stdout);
  for (;;) {
    struct epoll_event events[64];
    int count = epoll_wait(poller, events, 64, -1);
    for (int i = 0; i < count; i++) {
      peer_t *peer = events[i].data.ptr;
      if (events[i].data.ptr == &standard_input) {
        char byte;
        if (read(0, &byte, 1) <= 0) return 0;
      } else if (events[i].data.ptr == &listening) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        if (fd < 0) continue;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        peer = calloc(1, sizeof *peer);
        if (!peer) die("no memory");
        peer->fd = fd;
        watch(poller, fd, peer);
      } else if (!readable(peer)) {
        close(peer->fd);
        free(peer->data);
        free(peer);
      }
    }
  }
}
