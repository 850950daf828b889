/* What the programs with librabbitmq share. PROGRAM is what they call themselves. */

#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

static void die(const char *what) {
  fprintf(stderr, PROGRAM ": %s\n", what);
  exit(1);
}

static void check(amqp_connection_state_t connection, const char *what) {
  if (amqp_get_rpc_reply(connection).reply_type != AMQP_RESPONSE_NORMAL) die(what);
}

static amqp_connection_state_t opened(const char *host, int port, const char *vhost, const char *user,
                                      const char *password) {
  amqp_connection_state_t connection = amqp_new_connection();
  amqp_socket_t *socket = amqp_tcp_socket_new(connection);
  if (!socket || amqp_socket_open(socket, host, port)) die("cannot connect");
  if (amqp_login(connection, vhost, 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, user, password).reply_type !=
      AMQP_RESPONSE_NORMAL)
    die("cannot log in");
  amqp_channel_open(connection, 1);
  check(connection, "cannot open a channel");
  return connection;
}

/* The next frame that is already here; 0 when there is none. */
static int next_frame(amqp_connection_state_t connection, amqp_frame_t *frame) {
  struct timeval at_once = {0, 0};
  int status = amqp_simple_wait_frame_noblock(connection, frame, &at_once);
  if (status == AMQP_STATUS_TIMEOUT) return 0;
  if (status != AMQP_STATUS_OK) die(amqp_error_string2(status));
  return 1;
}

static void content_frame(amqp_connection_state_t connection, amqp_frame_t *frame, int type) {
  if (amqp_simple_wait_frame(connection, frame) != AMQP_STATUS_OK || frame->frame_type != type)
    die("a content frame is missing");
}
