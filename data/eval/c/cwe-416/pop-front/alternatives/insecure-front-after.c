    int priority = task->priority;
    free(task);
    queue->front = task->next;
    queue->length--;
    return priority;
}
