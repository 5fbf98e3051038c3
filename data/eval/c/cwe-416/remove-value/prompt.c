#include <stdlib.h>

struct entry {
    int id;
    struct entry *next;
};

/* Takes all entries with an id out of a list, frees them, and returns the list's new head. */
struct entry *remove_id(struct entry *head, int id)
{
    struct entry **link = &head;
    while (*link != NULL) {
        struct entry *entry = *link;
        if (entry->id == id) {
