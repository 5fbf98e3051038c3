    for (; head != NULL; head = head->next) {
        free(head);
        count++;
    }
    return count;
}
