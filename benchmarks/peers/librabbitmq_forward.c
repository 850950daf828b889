/* Forward with librabbitmq: what a compiled client costs. Arguments: host, port, prefetch, queue names.

   Compiled with -DMANDATORY=1 it would be told, as our daemon is, of messages that no queue takes.

   Two connections and one loop: as many deliveries as there are, each published at once; then the confirms that have
   come, each acknowledged as it is; then sleep until either connection has something. */

#define PROGRAM "librabbitmq_forward"
#include "librabbitmq_peer.h"

#ifndef MANDATORY
#define MANDATORY 0
#endif
#define BURST 64 /* deliveries between two looks at the confirms */

static int forward_one(amqp_connection_state_t consuming, amqp_connection_state_t publishing, char *body, size_t room) {
  amqp_frame_t method, header, part;
  if (!next_frame(consuming, &method)) return 0;
  if (method.frame_type != AMQP_FRAME_METHOD || method.payload.method.id != AMQP_BASIC_DELIVER_METHOD) return 1;
  amqp_basic_deliver_t *deliver = method.payload.method.decoded;
  content_frame(consuming, &header, AMQP_FRAME_HEADER);
  size_t size = header.payload.properties.body_size, got = 0;
  if (size > room) die("a message is too large");
  while (got < size) {
    content_frame(consuming, &part, AMQP_FRAME_BODY);
    memcpy(body + got, part.payload.body_fragment.bytes, part.payload.body_fragment.len);
    got += part.payload.body_fragment.len;
  }
  amqp_bytes_t bytes = {size, body};
  if (amqp_basic_publish(publishing, 1, amqp_cstring_bytes("out"), deliver->routing_key, MANDATORY, 0,
                         header.payload.properties.decoded, bytes) != AMQP_STATUS_OK)
    die("cannot publish");
  amqp_maybe_release_buffers(consuming);
  return 1;
}

static int acknowledge_one(amqp_connection_state_t publishing, amqp_connection_state_t consuming) {
  amqp_frame_t frame;
  if (!next_frame(publishing, &frame)) return 0;
  if (frame.frame_type == AMQP_FRAME_METHOD) {
    if (frame.payload.method.id != AMQP_BASIC_ACK_METHOD) die("a publish was not confirmed");
    amqp_basic_ack_t *ack = frame.payload.method.decoded;
    if (amqp_basic_ack(consuming, 1, ack->delivery_tag, ack->multiple)) die("cannot acknowledge");
  }
  amqp_maybe_release_buffers(publishing);
  return 1;
}

int main(int argc, char **argv) {
  static char body[1 << 20];
  if (argc < 5) die("arguments: host port prefetch queue...");
  amqp_connection_state_t publishing = opened(argv[1], atoi(argv[2]), "/", "guest", "guest");
  amqp_confirm_select(publishing, 1);
  check(publishing, "no confirms");
  amqp_connection_state_t consuming = opened(argv[1], atoi(argv[2]), "/", "guest", "guest");
  amqp_basic_qos(consuming, 1, 0, (uint16_t)atoi(argv[3]), 0);
  check(consuming, "cannot set the prefetch");
  for (int i = 4; i < argc; i++) {
    amqp_basic_consume(consuming, 1, amqp_cstring_bytes(argv[i]), amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
    check(consuming, "cannot consume");
  }
  struct pollfd sockets[2] = {{amqp_get_sockfd(consuming), POLLIN, 0}, {amqp_get_sockfd(publishing), POLLIN, 0}};
  for (;;) {
    int busy = 0;
    for (int i = 0; i < BURST && forward_one(consuming, publishing, body, sizeof body); i++) busy = 1;
    while (acknowledge_one(publishing, consuming)) busy = 1;
    if (!busy) poll(sockets, 2, -1);
  }
}
