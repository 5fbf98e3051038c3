    int priority = task->priority;
    queue->front = task->next;
    queue->length--;
    free(task);
    return priority;
}
