#include "driver.h"

struct entry {
    int id;
    struct entry *next;
};

struct entry *remove_id(struct entry *head, int id);

int main(int argc, char **argv)
{
    struct entry *head = NULL;
    for (int i = argc - 1; i > 1; i--) {
        struct entry *entry = exact(sizeof *entry);
        entry->id = atoi(argv[i]);
        entry->next = head;
        head = entry;
    }
    for (head = remove_id(head, atoi(argv[1])); head != NULL; head = head->next)
        printf("%d ", head->id);
    puts(".");
    return 0;
}
