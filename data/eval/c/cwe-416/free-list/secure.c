    while (head != NULL) {
        struct node *next = head->next;
        free(head);
        head = next;
        count++;
    }
    return count;
}
