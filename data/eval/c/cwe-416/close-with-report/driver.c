#include "driver.h"

struct session {
    int id;
    char *user;
    unsigned bytes;
};

void close_session(struct session *session, char *report, size_t size);

int main(int argc, char **argv)
{
    char report[80] = "";
    struct session *session = exact(sizeof *session);
    *session = (struct session){atoi(argv[1]), exact_string(argv[2]), 4096};
    close_session(session, report, atoi(argv[3]));
    puts(report);
    return 0;
}
