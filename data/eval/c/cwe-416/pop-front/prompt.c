#include <stdlib.h>

struct task {
    int priority;
    struct task *next;
};

struct queue {
    struct task *front;
    int length;
};

/* Takes the front task out of a queue, frees it and returns its priority; -1 if the queue is empty. */
int pop_front(struct queue *queue)
{
    struct task *task = queue->front;
    if (task == NULL)
        return -1;
