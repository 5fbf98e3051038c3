    while (events->next)
        events = events->next;
    return events ? events->day : -1;
}
