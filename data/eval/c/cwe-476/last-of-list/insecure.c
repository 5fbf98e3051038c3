    while (events->next != NULL)
        events = events->next;
    return events->day;
}
