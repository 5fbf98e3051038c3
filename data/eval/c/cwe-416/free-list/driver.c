#include "driver.h"

struct node {
    int value;
    struct node *next;
};

int free_list(struct node *head);

int main(int argc, char **argv)
{
    struct node *head = NULL;
    for (int i = atoi(argv[1]); i > 0; i--) {
        struct node *node = exact(sizeof *node);
        node->value = i;
        node->next = head;
        head = node;
    }
    printf("%d\n", free_list(head));
    return 0;
}
