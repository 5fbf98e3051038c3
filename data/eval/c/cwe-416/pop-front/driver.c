#include "driver.h"

struct task {
    int priority;
    struct task *next;
};

struct queue {
    struct task *front;
    int length;
};

int pop_front(struct queue *queue);

int main(int argc, char **argv)
{
    struct queue queue = {NULL, argc - 1};
    for (int i = argc - 1; i > 0; i--) {
        struct task *task = exact(sizeof *task);
        task->priority = atoi(argv[i]);
        task->next = queue.front;
        queue.front = task;
    }
    do
        printf("%d ", pop_front(&queue));
    while (queue.front != NULL);
    printf("left %d\n", queue.length);
    return 0;
}
