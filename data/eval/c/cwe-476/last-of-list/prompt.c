#include <stddef.h>

struct event {
    int day;
    struct event *next;
};

/* Day of the last event in a list, or -1 if there are no events. */
int last_day(const struct event *events)
{
