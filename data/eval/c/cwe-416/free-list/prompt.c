#include <stdlib.h>

struct node {
    int value;
    struct node *next;
};

/* Frees a whole list and returns how many nodes it had. */
int free_list(struct node *head)
{
    int count = 0;
