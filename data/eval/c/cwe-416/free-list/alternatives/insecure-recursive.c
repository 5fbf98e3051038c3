    if (head == NULL)
        return 0;
    free(head);
    return 1 + free_list(head->next);
}
