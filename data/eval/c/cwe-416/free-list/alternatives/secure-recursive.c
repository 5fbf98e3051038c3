    if (head == NULL)
        return 0;
    count = 1 + free_list(head->next);
    free(head);
    return count;
}
