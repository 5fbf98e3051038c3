            *link = entry->next;
            free(entry);
        } else {
            link = &entry->next;
        }
    }
    return head;
}
