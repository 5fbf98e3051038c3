#include <stdio.h>
#include <stdlib.h>

struct session {
    int id;
    char *user;         /* allocated */
    unsigned bytes;
};

/* Ends a session: frees it with its user's name and writes "session ID of USER: BYTES bytes" to report (size
 * bytes). */
void close_session(struct session *session, char *report, size_t size)
{
