#include "driver.h"

struct event {
    int day;
    struct event *next;
};

int last_day(const struct event *events);

int main(int argc, char **argv)
{
    struct event *events = NULL;
    for (int i = argc - 1; i > 0; i--) {
        struct event *event = exact(sizeof *event);
        event->day = atoi(argv[i]);
        event->next = events;
        events = event;
    }
    printf("%d\n", last_day(events));
    return 0;
}
