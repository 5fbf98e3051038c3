    queue->front = task->next;
    queue->length--;
    free(task);
    return task->priority;
}
